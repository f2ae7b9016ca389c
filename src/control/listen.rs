//! Where the daemon listens: the control socket, and loopback for metrics.
//!
//! Both take so many connections at a time and no more, so that nobody can use up the daemon's
//! descriptors; at the socket, each user so many, and the owner has places of its own. The socket's
//! directory must be one where nobody else could put another socket in its place.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::peer::Peer;
use super::places;
use super::places::{Bounds, Places};
use crate::escape::quoted;
use crate::fs::staging::fresh_name;
use crate::fs::trust::{self, TrustError};

/// Connections to loopback at the same time: scrapers, not crowds.
const CONNECTIONS: usize = 64;
/// Connections to the socket at the same time: people and their tools. No user has all of those
/// that are for others than the owner.
const AT_SOCKET: Bounds = Bounds { owner: 64, user: 16, users: 64 };
/// Connections that are told at the same time that there is no place for them, and for how long
/// their question is waited for. Any further ones are closed.
const TURNED_AWAY: usize = 16;
const TURNING_AWAY: Duration = Duration::from_secs(1);
/// How long a connection from loopback is waited for: anybody on this host could keep all of them.
/// Scrapers come again.
const LIFE: Duration = Duration::from_secs(60);
/// The mode of the socket: its group may ask, others not.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Others could put another one in its place.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Another daemon answers there.
    #[error("another daemon answers at {}; give each a [control] socket of its own", quoted(.0))]
    Taken(PathBuf),
    /// Something that is no socket has the name.
    #[error("{} is no socket; remove it", quoted(.0))]
    Foreign(PathBuf),
    /// More than the kernel takes.
    #[error(
        "the name of the control socket {} is too long: it may have {MAX_NAME} bytes, in a directory of any depth",
        quoted(.0)
    )]
    TooLong(PathBuf),
    /// What is made there as a socket is none.
    #[error(
        "{} lies on a file system that has no sockets (of FUSE, rclone's and some others); name another path with \
         [control] socket",
        quoted(.0)
    )]
    NoSockets(PathBuf),
    /// The operating system refused.
    #[error("cannot listen at {}", quoted(path))]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The control socket.
pub(super) struct Socket {
    listener: UnixListener,
    places: Arc<Places>,
    turned_away: Arc<Semaphore>,
    place: Arc<Place>,
}

/// Where the socket stands; it goes when the last handle of this does.
pub(super) struct Place {
    dir: OwnedFd,
    name: std::ffi::OsString,
}

impl Drop for Place {
    fn drop(&mut self) {
        // One that stays is found dead by the next daemon, which removes it.
        rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty()).ok();
    }
}

/// The path of `name` in an open directory: of any length, as the kernel takes 107 bytes for a
/// socket's (unix(7)).
pub(super) fn short(dir: &OwnedFd, name: &std::ffi::OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_fd().as_raw_fd().to_string()).join(name)
}

/// A path as its directory, opened, and its name there.
pub(super) fn split(path: &Path) -> io::Result<(OwnedFd, std::ffi::OsString)> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(dir, flags, Mode::empty())?, name.to_owned()))
}

/// The most bytes of a socket's name: what the kernel takes for its path, less `/proc/self/fd/`,
/// the number of a descriptor of seven digits, and a slash (see [`short`]).
const MAX_NAME: usize = 107 - 14 - 7 - 1;

/// Why a socket could not be made, found out without making it.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// Its directory is not there.
    NoDirectory,
    /// Others could put another one in its place.
    Untrusted(TrustError),
    /// What making it would say.
    Bind(BindError),
}

/// What has the socket's name.
enum Occupant {
    Socket,
    /// An empty file that only this process's user could have made: what a file system without
    /// sockets makes of one.
    Leftover,
    /// Anything else.
    Foreign,
}

fn occupant(dir: &OwnedFd, name: &std::ffi::OsStr) -> Occupant {
    let me = rustix::process::geteuid().as_raw();
    let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return Occupant::Foreign };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Occupant::Socket,
        // Nobody else could put another file there between this look and the removal.
        FileType::RegularFile
            if stat.st_size == 0 && stat.st_nlink == 1 && stat.st_uid == me && is_private(dir, me) =>
        {
            Occupant::Leftover
        }
        FileType::RegularFile
        | FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Occupant::Foreign,
    }
}

/// Whether nobody but this user and root gives names in a directory.
fn is_private(dir: &OwnedFd, me: u32) -> bool {
    rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_uid == me && stat.st_mode & 0o022 == 0)
}

/// Checks that nobody else could put a socket of theirs there, and that it can have its name.
fn check_place(path: &Path) -> Result<(), BindError> {
    trust::check(path.parent().unwrap_or(path))?;
    match path.file_name() {
        Some(name) if name.len() > MAX_NAME => Err(BindError::TooLong(path.to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// Looks whether a socket could be made, or is there, and makes nothing.
pub(crate) fn look(path: &Path) -> Result<(), Obstacle> {
    match check_place(path) {
        Err(BindError::Trust(TrustError::Missing(_))) => return Err(Obstacle::NoDirectory),
        Err(BindError::Trust(error)) => return Err(Obstacle::Untrusted(error)),
        checked => checked.map_err(Obstacle::Bind)?,
    }
    let failed = |source: io::Error| Obstacle::Bind(BindError::Io { path: path.to_owned(), source });
    let (dir, name) = split(path).map_err(failed)?;
    match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => match occupant(&dir, &name) {
            Occupant::Socket | Occupant::Leftover => {}
            Occupant::Foreign => return Err(Obstacle::Bind(BindError::Foreign(path.to_owned()))),
        },
        Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let access = Access::WRITE_OK | Access::EXEC_OK;
    let writable = rustix::fs::accessat(&dir, ".", access, AtFlags::EACCESS);
    writable.map_err(|error| failed(error.into()))
}

/// As [`look`], and whether there are sockets at all in that directory: one is made under another
/// name, and removed.
pub(crate) fn try_out(path: &Path) -> Result<(), Obstacle> {
    look(path)?;
    let failed = |source: io::Error| Obstacle::Bind(BindError::Io { path: path.to_owned(), source });
    let (dir, _) = split(path).map_err(failed)?;
    let name = fresh_name();
    let bound = std::os::unix::net::UnixListener::bind(short(&dir, &name));
    let is_socket = matches!(occupant(&dir, &name), Occupant::Socket);
    rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).ok(); // it may never have come there
    match bound {
        Ok(_) if !is_socket => Err(Obstacle::Bind(BindError::NoSockets(path.to_owned()))),
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

impl Socket {
    /// Makes the socket. One that a killed daemon left is removed, and so is what an earlier one
    /// has left on a file system without sockets; one at which somebody answers is not.
    ///
    /// # Errors
    /// [`BindError`].
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        check_place(path)?;
        let failed = |source: io::Error| BindError::Io { path: path.to_owned(), source };
        let (dir, name) = split(path).map_err(failed)?;
        let at = short(&dir, &name);
        let bound = match UnixListener::bind(&at) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                match occupant(&dir, &name) {
                    Occupant::Socket if std::os::unix::net::UnixStream::connect(&at).is_ok() => {
                        return Err(BindError::Taken(path.to_owned()));
                    }
                    Occupant::Socket | Occupant::Leftover => {}
                    Occupant::Foreign => return Err(BindError::Foreign(path.to_owned())),
                }
                rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).map_err(|e| failed(e.into()))?;
                UnixListener::bind(&at)
            }
            bound => bound,
        };
        let listener = match (bound, occupant(&dir, &name)) {
            (Ok(listener), Occupant::Socket) => listener,
            (Err(error), Occupant::Socket | Occupant::Foreign) => return Err(failed(error)),
            (Ok(_), Occupant::Foreign) | (_, Occupant::Leftover) => {
                // Nobody could connect, and the next daemon would find it there.
                rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).ok();
                return Err(BindError::NoSockets(path.to_owned()));
            }
        };
        // Until then the umask decides, and nobody has given others the right to write.
        rustix::fs::chmodat(&dir, &name, Mode::from_raw_mode(MODE), AtFlags::empty())
            .map_err(|e| failed(e.into()))?;
        Ok(Self {
            listener,
            places: Places::new(AT_SOCKET),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            place: Arc::new(Place { dir, name }),
        })
    }

    /// Tells somebody that there is no place, where not too many are told already.
    fn turn_away(&self, stream: UnixStream, peer: Peer) {
        let Ok(permit) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
        let told = async move {
            tokio::time::timeout(TURNING_AWAY, refuse(&stream, peer)).await.ok();
            drop((stream, permit));
        };
        tokio::spawn(told);
    }

    /// What has the socket removed once it is dropped.
    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.place)
    }
}

impl Listener for Socket {
    type Io = Placed<UnixStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        loop {
            let (stream, _) = Listener::accept(&mut self.listener).await;
            // Who is gone already needs no answer.
            let Ok(peer) = stream.peer_cred() else { continue };
            let peer = Peer::user(peer.uid());
            match self.places.take(peer) {
                Some(place) => return (Placed::new(stream, Permit::Socket(place), None), peer),
                None => self.turn_away(stream, peer),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::user(rustix::process::geteuid().as_raw()))
    }
}

/// Loopback.
pub(super) struct Loopback {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Loopback {
    /// Listens there.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS)) })
    }
}

impl Listener for Loopback {
    type Io = Placed<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let place = place(&self.places).await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Placed::new(stream, Permit::Loopback(place), Some(LIFE)), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Answers the first question with a refusal. It is read first: who is still asking would not read
/// the answer.
async fn refuse(stream: &UnixStream, peer: Peer) -> io::Result<()> {
    let mut question: Vec<u8> = Vec::new();
    while !question.windows(4).any(|end| end == b"\r\n\r\n") && question.len() < MAX_QUESTION {
        stream.readable().await?;
        let mut piece = [0; 1024];
        match stream.try_read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => question.extend(piece.iter().take(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let uid = peer.uid();
    let message =
        format!("user {uid} has too many connections here; end some (kms-sig events), and try again");
    let body = serde_json::json!({ "message": message }).to_string();
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.writable().await?;
    stream.try_write(answer.as_bytes()).map(drop) // it fits into the socket's buffer
}

/// What of a question is read that is refused, in bytes.
const MAX_QUESTION: usize = 16 * 1024;

/// What a connection holds for as long as it lasts.
enum Permit {
    /// A place at the socket.
    Socket(#[expect(dead_code, reason = "held until it is dropped")] places::Place),
    /// One of the places at loopback.
    Loopback(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
}

/// Waits for a place. The semaphore is never closed; without it, nobody else is let in.
async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match Arc::clone(places).acquire_owned().await {
        Ok(place) => place,
        Err(_) => std::future::pending().await,
    }
}

/// A connection that has a place for as long as it lasts.
pub(super) struct Placed<S> {
    stream: S,
    _place: Permit,
    /// From when on nothing more is waited for.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Placed<S> {
    fn new(stream: S, place: Permit, life: Option<Duration>) -> Self {
        Self { stream, _place: place, end: life.map(|life| Box::pin(tokio::time::sleep(life))) }
    }

    /// What became of a step, unless it has to be waited for and there is no more time to.
    fn in_time<T>(&mut self, step: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match &mut self.end {
            Some(end) if step.is_pending() => {
                end.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            _ => step,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.in_time(step, cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.in_time(step, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected<IncomingStream<'_, Socket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        *stream.remote_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn who_says_nothing_or_takes_nothing_loses_the_place() {
        let places = Arc::new(Semaphore::new(1));
        for reads in [true, false] {
            let (_peer, stream) = tokio::io::duplex(8);
            let place = place(&places).await;
            let mut placed = Placed::new(stream, Permit::Loopback(place), Some(Duration::from_millis(1)));
            let ended = match reads {
                true => placed.read_u8().await.map(drop),
                false => placed.write_all(&[0; 100]).await,
            };
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        let (mut peer, stream) = tokio::io::duplex(8);
        let mut placed = Placed::new(stream, Permit::Loopback(place(&places).await), Some(Duration::ZERO));
        peer.write_u8(7).await.unwrap();
        assert_eq!(placed.read_u8().await.unwrap(), 7, "what is there need not be waited for");
    }
}
