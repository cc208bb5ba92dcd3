//! The servers that the clients of a benchmark fetch from over loopback.

use std::path::Path;

use dt_testkit::programs::Server;

use crate::Failure;
use crate::clients::{Endpoint, Old, Scene};
use crate::gridftp::GridFtp;
use crate::nginx::Nginx;
use crate::product::{OldPrograms, serve, serve_with};

/// The servers of one folder, ended when dropped.
#[derive(Debug)]
pub struct Servers {
    /// The product's.
    pub server: Server,
    /// The web server, if it is installed.
    pub nginx: Option<Nginx>,
    gridftp: Option<GridFtp>,
    /// An earlier pair of programs, and its server.
    pub old: Option<(OldPrograms, Server)>,
}

impl Servers {
    /// Serves the files below `root`; the product's server gets these options.
    ///
    /// # Errors
    /// If a server that is installed cannot be started.
    pub fn start(root: &Path, options: &[&str], old: Option<OldPrograms>) -> Result<Self, Failure> {
        let old = match old {
            Some(programs) => {
                let server = serve_with(programs.server(), root, options)?;
                Some((programs, server))
            }
            None => None,
        };
        Ok(Self {
            server: serve(root, options)?,
            nginx: Nginx::start(root)?,
            gridftp: GridFtp::start(root)?,
            old,
        })
    }

    /// Has the clients of `scene` fetch from these servers.
    pub fn attach(&self, scene: &mut Scene) {
        scene.server = endpoint(&self.server);
        scene.web = self.nginx.as_ref().map(Nginx::endpoint);
        scene.gridftp = self.gridftp.as_ref().map(GridFtp::endpoint);
        scene.old = self.old.as_ref().map(|(programs, server)| old(programs, server));
    }
}

/// An earlier build with its server.
pub fn old(programs: &OldPrograms, server: &Server) -> Old {
    Old { client: programs.client().to_owned(), server: endpoint(server) }
}

/// Where a server of the product listens.
pub fn endpoint(server: &Server) -> Endpoint {
    Endpoint { address: server.addr.to_string(), process: Some(server.process().id()) }
}
