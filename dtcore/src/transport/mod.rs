//! Byte streams: making and accepting connections, and how a connection ends.

mod accept;
mod close;
mod connect;
mod connection;
mod listen;
mod rate_limit;
mod read;
mod tcp;

pub(crate) use accept::accept;
pub(crate) use close::{LINGER_TIMEOUT, drain_until_closed, shut_down_sending};
pub(crate) use connect::{Connected, connect, connect_retrying, failed, prepared};
pub(crate) use connection::Connection;
pub(crate) use listen::{PortUse, listen};
pub(crate) use rate_limit::RateLimit;
pub(crate) use read::read_when_ready;
pub(crate) use tcp::TcpConnection;
