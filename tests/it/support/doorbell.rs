//! A listener in place of KMS, for commands that must not call it.

use std::net::TcpListener;

use super::place::Place;

/// Stands where KMS would be, and only notices whether anyone comes.
pub(crate) struct Doorbell(TcpListener);

impl Doorbell {
    /// Makes it the AWS endpoint of a place, with credentials enough to be called.
    pub(crate) fn at(place: &mut Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        place.set("AWS_ENDPOINT_URL", format!("http://{}", listener.local_addr().unwrap()));
        for (name, value) in [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            place.set(name, value);
        }
        Self(listener)
    }

    /// Nobody came.
    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        let came = self.0.accept();
        assert!(came.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "KMS was called");
    }
}
