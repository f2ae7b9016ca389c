//! Just enough HTTP/1.1: heads, bodies with a length, one request per upstream connection.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// The largest head taken; the SDK's are about 1 KiB.
const MAX_HEAD: usize = 64 << 10;

/// A start line and header fields.
pub(crate) struct Head {
    lines: Vec<String>,
}

impl Head {
    /// Reads up to and with the empty line. `None`: the peer closed between two messages.
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        // Byte by byte, so that nothing of the body is read.
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte)? {
                0 if bytes.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ if bytes.len() == MAX_HEAD => return Err(io::ErrorKind::InvalidData.into()),
                _ => bytes.extend(byte),
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(Self { lines: text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect() }))
    }

    /// The first line.
    pub(crate) fn start_line(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }

    /// The value of a header field; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn content_length(&self) -> usize {
        self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }
}

/// A reply.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    content_type: String,
    pub(crate) body: Vec<u8>,
    pub(crate) date: Option<&'static str>,
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, content_type: content_type.to_owned(), body, date: None }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/x-amz-json-1.1", body.to_string().into_bytes())
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn head(&self) -> String {
        let date = self.date.map(|date| format!("date: {date}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 {} -\r\ncontent-type: {}\r\ncontent-length: {}\r\n{date}x-amzn-requestid: from-the-proxy\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len()
        )
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [self.head().as_bytes(), &self.body].concat()
    }
}

/// Posts to `http://HOST:PORT`.
pub(crate) fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
    let address = url.strip_prefix("http://").ok_or(io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(address)?;
    let mut head = format!("POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let head = Head::read(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status =
        head.start_line().split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; head.content_length()];
    stream.read_exact(&mut body)?;
    Ok(Reply::new(status, head.header("content-type").unwrap_or_default(), body))
}
