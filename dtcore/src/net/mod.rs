//! Sockets: making and accepting connections, the two halves of the control conversation, and how a connection ends.

mod accept;
mod address;
mod closing;
mod connect;
mod control;
mod dial;
mod head;
mod listen;
mod rewound;

pub(crate) use accept::accept;
pub use address::{InvalidAddress, ServerAddress};
pub(crate) use closing::{Farewell, drain_until_closed, shut_down_sending};
pub(crate) use connect::{connect, connect_retrying};
pub(crate) use control::{Control, Offer, Session, Transfer};
pub(crate) use dial::{Route, dial};
pub(crate) use head::{Head, HeadError};
pub(crate) use listen::{PortUse, listen};
pub(crate) use rewound::Rewound;
