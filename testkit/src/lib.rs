//! What the end-to-end tests and the benchmarks share: the programs as processes, both protocols written a second time from
//! their description, a proxy that does damage, and the small things around them.
//!
//! Nothing here uses `dtcore`: what the programs are compared with must not share their code. Every wait has a deadline,
//! every process is ended by its id, and all traffic stays on the loopback interface.

pub mod content;
pub mod corpus;
pub mod disk;
pub mod events;
pub mod fetched;
pub mod forwarder;
pub mod frame;
pub mod http;
pub mod journal;
pub mod messages;
pub mod original_client;
pub mod original_server;
pub mod pipe;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod range_server;
pub mod reverse_proxy;
pub mod session;
pub mod sockets;
pub mod source;
pub mod wait;
pub mod workspace;

/// The programs that cargo built for the calling test target.
#[macro_export]
macro_rules! programs {
    () => {
        $crate::programs::Programs {
            server: env!("CARGO_BIN_EXE_dtserver-under-test"),
            client: env!("CARGO_BIN_EXE_dtclient-under-test"),
        }
    };
}
