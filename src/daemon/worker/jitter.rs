//! Random delays that spread load. No decision depends on them.

use std::time::Duration;

/// A time between three and five quarters of `pause`, so that many rules do not scan at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + uniform() / 2.0)
}

/// Uniform in 0..1.
pub(crate) fn uniform() -> f64 {
    f64::from(random()) / (f64::from(u32::MAX) + 1.0)
}

fn random() -> u32 {
    let mut bytes = [0_u8; 4];
    // If the generator fails the delay is constant, which is harmless.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or_default();
    u32::from_ne_bytes(bytes)
}
