//! Sockets: listening, accepting, the head of a request, and the ways a connection ends.

mod accept;
mod closing;
mod head;
mod listen;
mod rewound;

pub(crate) use accept::accept;
pub(crate) use closing::{Farewell, drain_until_closed, shut_down_sending};
pub(crate) use head::{Head, HeadError};
pub(crate) use listen::{PortUse, listen};
pub(crate) use rewound::Rewound;
