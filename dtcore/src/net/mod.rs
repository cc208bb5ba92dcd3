//! Connections and the control conversation.

mod address;
mod connect;
mod control;

pub use address::{InvalidAddress, ServerAddress};
pub(crate) use connect::{connect, connect_retrying};
pub(crate) use control::{Control, Offer};
