//! Many small files, and one after the other.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::kms::{KEY, SlowKms};
use crate::line;
use crate::place::{Place, SETTLE, aws, name, sign_rule, until_there, verify_rule};

const FILES: usize = 10_000;
const DELAY: Duration = Duration::from_millis(20);
const IN_FLIGHT: usize = 64;

const ONCE: [&str; 4] = ["watch", "--policy", "policy.toml", "--once"];

/// The same calls and nothing else: what anything with this SDK has to wait for.
fn bare_loop(
    kms: &SlowKms,
    operation: fn(aws_sdk_kms::Client, usize) -> tokio::task::JoinHandle<()>,
) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(aws_sdk_kms::config::BehaviorVersion::latest())
        .region(aws_sdk_kms::config::Region::new("eu-west-1"))
        .endpoint_url(&kms.url)
        .credentials_provider(aws_sdk_kms::config::Credentials::new("bench", "bench", None, None, "bench"))
        .build();
    let client = aws_sdk_kms::Client::from_conf(config);
    let began = Instant::now();
    runtime.block_on(async {
        let next = Arc::new(AtomicUsize::new(0));
        let lanes: Vec<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (client, next) = (client.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= FILES {
                            return;
                        }
                        operation(client.clone(), i).await.unwrap();
                    }
                })
            })
            .collect();
        for lane in lanes {
            lane.await.unwrap();
        }
    });
    began.elapsed()
}

fn encrypt(client: aws_sdk_kms::Client, i: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let plaintext = aws_sdk_kms::primitives::Blob::new([i as u8; 64]);
        client
            .encrypt()
            .key_id(KEY)
            .plaintext(plaintext)
            .encryption_context("file", name(i))
            .send()
            .await
            .unwrap();
    })
}

fn decrypt(client: aws_sdk_kms::Client, i: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut blob = vec![0; 96];
        blob[..5].copy_from_slice(&[1, 2, 2, 0, 0x78]);
        blob.extend([i as u8; 64]);
        let blob = aws_sdk_kms::primitives::Blob::new(blob);
        client
            .decrypt()
            .key_id(KEY)
            .ciphertext_blob(blob)
            .encryption_context("file", name(i))
            .send()
            .await
            .unwrap();
    })
}

/// 10,000 files signed, KMS taking 20 ms.
pub(crate) fn sign() {
    let kms = SlowKms::start(DELAY);
    let bare = bare_loop(&kms, encrypt);
    line("10,000 Encrypt by the SDK alone, 64 at a time", bare, None);
    let place = Place::new(&format!("{}{}", aws(&kms), sign_rule(KEY)));
    place.fill("in", FILES);
    kms.calls();
    let took = place.command(&ONCE).saturating_sub(SETTLE);
    line("10,000 files of 1 KiB signed, after settling", took, Some(bare));
    println!("  calls of KMS: {}", kms.calls());
}

/// The same under a policy without limits: the rate finds itself.
pub(crate) fn rate() {
    let kms = SlowKms::start(DELAY);
    let rules = format!("{}{}", aws(&kms), sign_rule(KEY));
    let place = Place::new(&rules);
    place.policy_of_default_limits(&rules);
    place.fill("in", FILES);
    kms.calls();
    let took = place.command(&ONCE).saturating_sub(SETTLE);
    line("10,000 files of 1 KiB signed, no limits in the policy", took, None);
    println!("  calls of KMS: {}", kms.calls());
}

/// 10,000 pairs verified and delivered, KMS taking 20 ms.
pub(crate) fn verify() {
    let kms = SlowKms::start(DELAY);
    let bare = bare_loop(&kms, decrypt);
    line("10,000 Decrypt by the SDK alone, 64 at a time", bare, None);
    let place = Place::new(&format!("{}{}", aws(&kms), sign_rule(KEY)));
    place.fill("in", FILES);
    place.command(&ONCE);
    fs::remove_dir_all(place.path("state")).unwrap();
    place.policy(&format!("{}{}", aws(&kms), verify_rule()));
    rustix::fs::sync();
    kms.calls();
    let took = place.command(&ONCE).saturating_sub(SETTLE);
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), FILES * 2);
    line("10,000 pairs verified and delivered, after settling", took, Some(bare));
    println!("  calls of KMS: {}", kms.calls());
}

/// 10,000 files signed and verified in batches: how many calls that takes.
pub(crate) fn batch() {
    let kms = SlowKms::start(DELAY);
    let batches = "batch = { window = \"1s\", max_files = 1000 }\n";
    let place = Place::new(&format!("{}{}{batches}", aws(&kms), sign_rule(KEY)));
    place.fill("in", FILES);
    let took = place.command(&ONCE).saturating_sub(SETTLE);
    line("10,000 files of 1 KiB signed in batches of 1,000", took, None);
    println!("  calls of KMS: {}", kms.calls());
    fs::remove_dir_all(place.path("state")).unwrap();
    place.policy(&format!("{}{}accept_batch = true\n", aws(&kms), verify_rule()));
    rustix::fs::sync();
    let took = place.command(&ONCE).saturating_sub(SETTLE);
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), FILES * 2);
    line("10,000 pairs of such batches verified and delivered", took, None);
    println!("  calls of KMS: {}", kms.calls());
}

/// Signs 10,000 files with a running daemon, and returns how long it took from the first file on.
fn sign_with_daemon(place: &Place) -> Duration {
    place.fill("made", FILES);
    let _daemon = place.daemon();
    let began = Instant::now();
    for i in 0..FILES {
        fs::rename(place.path("made").join(name(i)), place.path("in").join(name(i))).unwrap();
    }
    for i in 0..FILES {
        until_there(&place.path("in").join(format!("{}.sig", name(i))), began);
    }
    began.elapsed()
}

/// The same, while metrics are scraped ten times a second.
pub(crate) fn scrape() {
    let kms = SlowKms::start(DELAY);
    let rules = format!("{}{}", aws(&kms), sign_rule(KEY));
    let alone = sign_with_daemon(&Place::new(&rules));
    line("10,000 files signed by a running daemon", alone, None);
    let place = Place::new(&rules);
    let socket = place.path("state/control.sock");
    let over = Arc::new(AtomicBool::new(false));
    let scraper = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut scrapes = 0;
            while !over.load(Ordering::Relaxed) {
                scrapes += usize::from(scraped(&socket));
                std::thread::sleep(Duration::from_millis(100));
            }
            scrapes
        })
    };
    let watched = sign_with_daemon(&place);
    over.store(true, Ordering::Relaxed);
    line("the same, metrics scraped ten times a second", watched, Some(alone));
    println!("  scrapes: {}", scraper.join().unwrap());
}

fn scraped(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let request = b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains("# EOF")
}

/// What people do without it: a process for each file.
pub(crate) fn others() {
    const FEW: usize = 1_000;
    let place = Place::new(&sign_rule("local:bench"));
    place.fill("in", FEW);
    let took = place.command(&ONCE).saturating_sub(SETTLE);
    line("1,000 files signed by kms-sig, a local key", took, None);
    let program = env!("CARGO_BIN_EXE_kms-sig");

    let other = Place::new(&sign_rule("local:bench"));
    other.fill("in", FEW);
    let script = format!(
        "find in -type f -print0 | xargs -0 -P 2 -I {{}} {program} sign local:bench {{}} --keyring keyring 2>/dev/null"
    );
    let began = Instant::now();
    assert!(Command::new("sh").args(["-c", &script]).current_dir(other.path("")).status().unwrap().success());
    line("the same by find and xargs -P 2 with a process for each", began.elapsed(), Some(took));

    let other = Place::new(&sign_rule("local:bench"));
    other.fill("made", FEW);
    let inoticoming = Command::new("inoticoming")
        .args(["--foreground", "in", "--regexp", "[.]gz$", program, "sign", "local:bench", "in/{}"])
        .args(["--keyring", "keyring", ";"])
        .current_dir(other.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut inoticoming) = inoticoming else {
        println!("  inoticoming is not there (Debian: apt-get install inoticoming)");
        return;
    };
    std::thread::sleep(Duration::from_millis(500)); // it does not say when it watches
    let began = Instant::now();
    for i in 0..FEW {
        fs::rename(other.path("made").join(name(i)), other.path("in").join(name(i))).unwrap();
    }
    for i in 0..FEW {
        until_there(&other.path("in").join(format!("{}.sig", name(i))), began);
    }
    line("the same by inoticoming with a process for each", began.elapsed(), Some(took));
    inoticoming.kill().ok();
    inoticoming.wait().ok();
}
