//! The `GridFTP` server that `globus-url-copy` fetches from.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Failure;
use crate::clients::Endpoint;
use crate::process::{Guard, listening, on_path};

/// How the server is installed.
pub const PACKAGE: &str = "apt-get install globus-gridftp-server-progs";

/// A globus-gridftp-server on the loopback address, ended when dropped.
#[derive(Debug)]
pub struct GridFtp {
    guard: Guard,
    address: String,
}

impl GridFtp {
    /// Serves all files that everybody may read, those in `root` among them, on a port of the system's choice; `None` if it
    /// is not installed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(root: &Path) -> Result<Option<Self>, Failure> {
        // The port is free again when the listener is dropped; no other program here asks for one just now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let Some(mut command) = command(root, address)? else { return Ok(None) };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = Guard::new(command.spawn()?);
        let address = address.to_string();
        listening("globus-gridftp-server", || TcpStream::connect(&address).is_ok())?;
        Ok(Some(Self { guard, address }))
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.address.clone(), process: Some(self.guard.id()) }
    }
}

/// The command that runs it in the foreground; `None` if it is not installed.
///
/// # Errors
/// If `root` cannot be opened to it.
pub fn command(root: &Path, address: SocketAddr) -> Result<Option<Command>, Failure> {
    let Some(program) = on_path("globus-gridftp-server") else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(["-aa", "-home-dir", "/", "-p", &address.port().to_string()]);
    for interface in ["-control-interface", "-data-interface"] {
        command.args([interface, &address.ip().to_string()]);
    }
    if rustix::process::geteuid().is_root() {
        // Sessions of root are refused, and others cannot enter a temporary folder.
        command.args(["-anonymous-user", "nobody", "-anonymous-group", "nogroup"]);
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    }
    Ok(Some(command))
}
