//! The web server that the peers fetch from: nginx with sendfile, its files in a folder of its own.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;
use crate::clients::Endpoint;
use crate::process::{Guard, listening, on_path};

/// How it is installed.
pub const PACKAGE: &str = "apt-get install nginx-light";

/// An nginx on the loopback address, ended when dropped.
#[derive(Debug)]
pub struct Nginx {
    guard: Guard,
    /// Where it listens, as HOST:PORT.
    pub address: String,
}

impl Nginx {
    /// Serves the files below `root` on a port of the system's choice; `None` if nginx is not installed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(root: &Path) -> Result<Option<Self>, Failure> {
        // The port is free again when the listener is dropped; no other program here asks for one just now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let Some(mut command) = command(root, &address)? else { return Ok(None) };
        let guard = Guard::new(command.stdin(Stdio::null()).spawn()?);
        listening("nginx", || TcpStream::connect(&address).is_ok())?;
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
/// If its settings cannot be written.
pub fn command(root: &Path, address: &str) -> Result<Option<Command>, Failure> {
    let Some(program) = on_path("nginx") else { return Ok(None) };
    let folder = root.join("nginx");
    let settings = write_settings(root, &folder, address)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&folder).arg("-e").arg(folder.join("errors")).arg("-c").arg(settings);
    Ok(Some(command))
}

/// Whether [`command`] was called for this folder, and nginx is installed.
pub fn is_set_up(root: &Path) -> bool {
    root.join("nginx/nginx.conf").exists()
}

fn write_settings(root: &Path, folder: &Path, address: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    // Workers of another user could not enter a temporary folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path \"{}/{what}\";", folder.display()))
        .collect();
    let text = format!(
        "{user} daemon off; worker_processes auto; pid \"{folder}/pid\"; error_log \"{folder}/errors\";\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n\
         access_log off; sendfile on; tcp_nopush on; {}\n\
         server {{ listen {address}; root \"{}\"; }}\n\
         }}\n",
        temporary.join(" "),
        root.display(),
        folder = folder.display(),
    );
    let settings = folder.join("nginx.conf");
    fs::write(&settings, text)?;
    Ok(settings)
}
