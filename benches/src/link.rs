//! The tools in C beside this crate: the emulated link, and the machine's limit.
//!
//! A program that measures over the link runs twice: outside it prepares files and the link, inside it is the client's
//! side, in a network of its own, where it measures. The servers run on the other side.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::Failure;
use crate::clients::{Old, Scene};
use crate::files;
use crate::nginx;
use crate::process::{quoted, time};
use crate::product::{OldPrograms, Program};

/// Where `dtserver` listens on the far side.
const SERVER: &str = "10.77.0.1:9000";

/// Where an earlier build of it does.
const OLD_SERVER: &str = "10.77.0.1:9100";

/// Where nginx does.
const WEB: &str = "10.77.0.1:8080";

/// The first argument of a program that runs inside.
pub const INSIDE: &str = "--inside";

/// Compiles `benches/tools/NAME.c` into `folder`.
///
/// # Errors
/// If there is no compiler, or it fails.
pub fn compile(name: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tools/{name}.c"));
    let program = folder.join(name);
    let mut command = Command::new("cc");
    command.args(["-O2", "-w", "-pthread", "-o"]).arg(&program).arg(source);
    time(&mut command, Duration::from_secs(60))?;
    Ok(program)
}

/// A link that can be used again and again, and the folder that is served at its far end.
#[derive(Debug)]
pub struct Link {
    folder: TempDir,
    wanlab: PathBuf,
    servers: String,
}

impl Link {
    /// Prepares the servers' side, with an earlier build of the product if there is one.
    ///
    /// # Errors
    /// If the link cannot be compiled or the product was not built.
    pub fn new(old: Option<&OldPrograms>) -> Result<Self, Failure> {
        let folder = files::place(Path::new("/dev/shm"))?;
        let wanlab = compile("wanlab", folder.path())?;
        let root = quoted(folder.path());
        let dtserver = |program: &Path, address: &str| {
            let port = address.rsplit(':').next().unwrap_or_default();
            format!("{} --quiet --root {root} {port} > /dev/null", quoted(program))
        };
        let mut servers = format!("exec {}", dtserver(Program::find("dtserver")?.path(), SERVER));
        if let Some(old) = old {
            servers = format!("{} & {servers}", dtserver(old.server(), OLD_SERVER));
        }
        // The GridFTP server does not start where its address has no name.
        if let Some(nginx) = nginx::command(folder.path(), WEB)? {
            let words = std::iter::once(nginx.get_program()).chain(nginx.get_args());
            let words: Vec<String> = words.map(|word| quoted(Path::new(word))).collect();
            servers = format!("{} > /dev/null & {servers}", words.join(" "));
        }
        Ok(Self { folder, wanlab, servers })
    }

    /// The folder that is served.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs this program again, inside a link with these options.
    ///
    /// # Errors
    /// If the link cannot be made, or the program fails inside it.
    pub fn run(&self, options: &[String], arguments: &[String]) -> Result<(), Failure> {
        let mut inside = vec!["exec".to_owned(), quoted(&std::env::current_exe()?), INSIDE.to_owned()];
        inside.push(quoted(self.folder()));
        inside.extend(arguments.iter().map(|argument| quoted(Path::new(argument))));
        let mut command = Command::new(&self.wanlab);
        command.args(options).args(["--a", &self.servers, "--b", &inside.join(" ")]);
        let status = command.stdin(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(format!("inside the link: {status}").into()) }
    }
}

/// Has the clients of `scene` fetch from the servers at the other end.
pub fn attach(scene: &mut Scene, old: Option<&OldPrograms>) {
    scene.server = SERVER.to_owned().into();
    scene.old = old.map(|old| Old { client: old.client().to_owned(), server: OLD_SERVER.to_owned().into() });
    // Its settings show that it runs at the other end.
    scene.web = nginx::is_set_up(&scene.root).then(|| WEB.to_owned().into());
}

/// The number after an option of the link, such as `--rtt`.
pub fn figure(options: &[String], name: &str) -> Option<f64> {
    let at = options.iter().position(|option| option == name)?;
    options.get(at + 1)?.parse().ok()
}

/// How the kernel of the sending side reacts to loss, which these figures depend on.
pub fn congestion_control() -> String {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    text.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
