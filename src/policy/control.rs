//! What `[control]` says: where the daemon answers questions about itself.
//!
//! The socket must lie apart from what is watched and delivered to, as everything of the daemon's
//! own. Metrics tell names of rules and keys, so they stay on this host: an address that others can
//! reach is a fault.

use std::net::SocketAddr;
use std::path::Path;

use super::ControlSettings;
use super::grammar::CONTROL;
use super::place::{Place, Role};
use super::reader::{Field, Table};
use crate::escape::Escaped;

/// Reads `[control]`, and says which place it claims.
pub(super) fn read(top: &Table<'_>, base: &Path, places: &mut Vec<Place>) -> ControlSettings {
    let Some(table) = top.section("control", &CONTROL) else { return ControlSettings::default() };
    let socket = table.find("socket").and_then(|field| {
        let path = field.path(base)?;
        places.push(Place::new(Role::Socket, field.line, &path));
        Some(path)
    });
    ControlSettings { socket, metrics: table.find("metrics").and_then(|field| metrics(&field)) }
}

/// An address of this host's loopback, with a port.
fn metrics(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.text()?;
    let shown = Escaped::text(text);
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => {
            field.fault(format!(
                "\"{shown}\" can be reached by other hosts; write an address of loopback such as \"127.0.0.1:9464\""
            ));
            None
        }
        Ok(address) if address.port() == 0 => {
            field.fault(format!("\"{shown}\" names no port; write one such as \"127.0.0.1:9464\""));
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            field.fault(format!(
                "\"{shown}\" is no address with a port; write one such as \"127.0.0.1:9464\""
            ));
            None
        }
    }
}
