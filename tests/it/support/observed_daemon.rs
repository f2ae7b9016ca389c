//! A daemon that has signed, delivered, quarantined and held a file, for tests of its metrics.

use std::cell::RefCell;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::daemon::Daemon;
use super::files::sign;
use super::kms::set_credentials;
use super::metrics::{Answer, Page, ask, free_port};
use super::place::Place;
use super::policy::{SIGN, VERIFY, place, set_policy, with};
use super::proxy::{Fault, Proxy};

/// The daemon, and the port that serves its metrics.
pub(crate) struct ObservedDaemon {
    pub(crate) daemon: Daemon,
    pub(crate) place: Place,
    pub(crate) port: u16,
    _kms: Proxy,
}

pub(crate) const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// One file signed, one delivered, one quarantined, and one whose key is denied.
pub(crate) fn observed_daemon() -> ObservedDaemon {
    let mut place = place("");
    set_credentials(&mut place);
    for dir in ["arrivals", "away"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    let kms = Proxy::start("http://127.0.0.1:1"); // behind it is nobody, and nobody is asked
    kms.always(Some(Fault::ACCESS_DENIED));
    let port = free_port();
    let head = format!(
        "control.metrics = \"127.0.0.1:{port}\"\naws.region = \"eu-west-1\"\naws.endpoint_url = \"{}\"\n",
        kms.url()
    );
    let verify = with(VERIFY, "path = \"arrivals\"");
    let away = with(&with(&with(SIGN, "name = \"away\""), "path = \"away\""), &format!("key = \"{KEY}\""));
    set_policy(&place, &format!("{head}{SIGN}{verify}{away}"));
    for (file, then) in [("good", "content"), ("bad", "tampered")] {
        let (payload, signature) = sign(&place, file, "content");
        fs::write(&payload, then).unwrap();
        fs::rename(payload, place.path("arrivals").join(file)).unwrap();
        fs::rename(signature, place.path(format!("arrivals/{file}.sig"))).unwrap();
    }
    for file in ["in/f", "away/f"] {
        place.write(file, "content");
    }
    let daemon = Daemon::start(&place);
    daemon.until("it can be asked over loopback", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    for message in ["signed", "delivered", "quarantined"] {
        daemon.waits_for(message);
    }
    assert_eq!(daemon.waits_for("held")["cause"], "access-denied");
    ObservedDaemon { daemon, place, port, _kms: kms }
}

impl ObservedDaemon {
    pub(crate) fn over_socket(&self) -> Answer {
        ask(UnixStream::connect(self.place.path("state/control.sock")).unwrap(), "/metrics", "")
    }

    pub(crate) fn over_loopback(&self, target: &str, headers: &str) -> Answer {
        ask(TcpStream::connect(("127.0.0.1", self.port)).unwrap(), target, headers)
    }

    /// The metrics page that the control socket serves.
    pub(crate) fn now(&self) -> Page {
        Page::parse(&self.over_socket().body)
    }

    /// A page once every rule has shown its figures of now, which it does once a second.
    pub(crate) fn page(&self) -> Page {
        let shown = RefCell::new(None);
        self.daemon.until("all is shown", || {
            let page = self.now();
            let is_watched = |rule| {
                page.find("kms_sig_rule_state", &[("rule", rule), ("state", "watched")]) == Some(1.0)
                    && page.find("kms_sig_running_attempts", &[("rule", rule)]) == Some(0.0)
            };
            let held = page.find("kms_sig_held_files", &[("rule", "away"), ("cause", "access-denied")]);
            let is_shown = is_watched("sign") && is_watched("verify") && held == Some(1.0);
            shown.replace(is_shown.then_some(page));
            is_shown
        });
        shown.take().unwrap()
    }
}
