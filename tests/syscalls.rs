//! Every system call of either program fails once: the k-th of its kind in each thread, for every k there is.
//!
//! `strace` makes the calls fail. Whatever fails, a client either delivers the file or says in one line why not, loses
//! nothing that was there, and has no trouble the next time; a server goes on serving.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use dt_testkit::process::Outcome;
use dt_testkit::programs;
use dt_testkit::programs::{Programs, Run, Server};
use dt_testkit::workspace::{Workspace, files_in};

const PROGRAMS: Programs = programs!();

/// Three blocks, the last one short.
const SIZE: usize = 150_000;
/// The former content of the output.
const FORMER: &[u8] = b"former";
/// More calls of one kind than either program makes for such a file.
const MOST: u32 = 200;
/// More threads than a server has for so few clients.
const THREADS: u32 = 30;

/// The system calls of a client, and how each can fail. Memory, threads and random numbers are left out: the
/// language's own runtime gives up without them.
const OF_A_CLIENT: [(&str, &[&str]); 26] = [
    ("openat", &["EACCES", "EMFILE"]),
    ("flock", &["ENOLCK"]),
    ("fallocate", &["ENOSPC", "EIO", "EOPNOTSUPP"]),
    ("ftruncate", &["EIO"]),
    ("madvise", &["ENOMEM", "EFAULT"]),
    ("pwrite64", &["ENOSPC", "EIO"]),
    ("pread64", &["EIO"]),
    ("fsync", &["EIO"]),
    ("rename", &["EACCES"]),
    ("unlink", &["EACCES"]),
    ("statx", &["EIO"]),
    ("fchmod", &["EPERM"]),
    ("fsetxattr", &["ENOSPC"]),
    ("lseek", &["EIO"]),
    ("fstatfs", &["EIO"]),
    ("socket", &["EMFILE"]),
    ("connect", &["ECONNREFUSED", "ENETUNREACH"]),
    ("sendto", &["ECONNRESET"]),
    ("recvfrom", &["ECONNRESET"]),
    ("readv", &["ECONNRESET"]),
    ("setsockopt", &["ENOPROTOOPT"]),
    ("getsockopt", &["ENOBUFS"]),
    ("fcntl", &["EINVAL"]),
    ("epoll_ctl", &["ENOSPC"]),
    ("ioctl", &["ENOTTY"]),
    ("readlink", &["ENOENT"]),
];

/// The system calls of a server once it is ready.
const OF_A_SERVER: [(&str, &[&str]); 12] = [
    ("accept4", &["ECONNABORTED", "EMFILE"]),
    ("openat2", &["EMFILE", "ENOSYS"]),
    ("statx", &["EIO"]),
    ("sendfile", &["EIO", "ECONNRESET", "EINVAL"]),
    ("pread64", &["EIO"]),
    ("preadv2", &["EIO", "EOPNOTSUPP"]),
    ("recvfrom", &["ECONNRESET"]),
    ("sendto", &["EPIPE"]),
    ("setsockopt", &["ENOPROTOOPT", "EINVAL"]),
    ("getpeername", &["ENOTCONN"]),
    ("shutdown", &["ENOTCONN"]),
    ("epoll_ctl", &["ENOSPC"]),
];

struct Scene {
    workspace: Workspace,
    content: Vec<u8>,
}

impl Scene {
    /// Says on standard error why nothing can be traced, where that is so.
    fn new() -> Option<Self> {
        let traced =
            Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
        if !traced.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: strace is not installed, or may not trace here");
            return None;
        }
        let workspace = Workspace::new();
        let content = workspace.serve_pattern("f", 1, SIZE);
        Some(Self { workspace, content })
    }

    fn serve(&self) -> Run {
        PROGRAMS.serve(&self.workspace.root())
    }

    fn output(&self) -> PathBuf {
        self.workspace.output("out")
    }

    fn log(&self) -> PathBuf {
        self.workspace.path().join("calls")
    }

    /// The words of a command that lets the `k`-th such call fail in what follows them.
    fn failing(&self, call: &str, error: &str, k: u32) -> Vec<String> {
        let log = self.log().display().to_string();
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={k}"));
        ["strace", "-f", "-qq", "-o", &log, "-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
    }

    /// The same, where it is not the tracer but the program that the test has as its process.
    fn failing_detached(&self, call: &str, error: &str, k: u32) -> Vec<String> {
        let mut words = self.failing(call, error, k);
        words.insert(1, "-D".to_owned());
        words
    }

    /// The line of the call that failed, if there were as many.
    fn failed(&self) -> Option<String> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().find(|line| line.contains("(INJECTED)")).map(str::to_owned)
    }

    fn fetch(&self, server: &Server, options: &[&str]) -> Run {
        let run = PROGRAMS.fetch(server.addr, 2, "f", self.output());
        run.options(options).options(["--quiet", "--retries", "2"]).limit(Duration::from_secs(30))
    }

    /// Fails if there is anything else than there may be after a run that met with `fault`.
    #[track_caller]
    fn assert_sound(&self, outcome: &Outcome, fault: &str) {
        let output = fs::read(self.output()).unwrap_or_default();
        let files = files_in(&self.workspace.outputs());
        if outcome.code == Some(0) {
            assert!(output == self.content, "wrong bytes: {fault}: {outcome}");
            // A journal that cannot be recognised or removed stays, and does not get in the way.
            let may_stay = fault.contains("unlink(") || fault.contains("statx(");
            assert!(files == ["out"] || may_stay && files == ["out", "out.dtjournal"], "{files:?}: {fault}");
            return;
        }
        assert!(matches!(outcome.code, Some(1..=13)), "{fault}: {outcome}");
        outcome.assert_one_line("dtclient: ");
        // A failure after the renaming cannot restore the former file.
        assert!(output == FORMER || output == self.content, "the former output is lost: {fault}: {outcome}");
    }

    /// Fetches until the server has met with the fault in each of its threads.
    #[track_caller]
    fn assert_serves(&self, server: &Server, options: &[&str], fault: &str) {
        let is_served = (0..THREADS).any(|_| self.fetch(server, options).run().code == Some(0));
        assert!(is_served, "no client is served after {fault}");
        assert!(fs::read(self.output()).expect("it is there") == self.content, "after {fault}: wrong bytes");
    }

    /// Fetches once more, with nothing in the way.
    #[track_caller]
    fn assert_goes_on(&self, server: &Server, options: &[&str], fault: &str) {
        let outcome = self.fetch(server, options).run();
        assert_eq!(outcome.code, Some(0), "after {fault}: {outcome}");
        assert!(fs::read(self.output()).expect("it is there") == self.content, "after {fault}: wrong bytes");
        assert_eq!(files_in(&self.workspace.outputs()), ["out"], "after {fault}");
    }

    /// Makes the output folder what it was at first.
    fn clear(&self) {
        for name in files_in(&self.workspace.outputs()) {
            fs::remove_file(self.workspace.output(&name)).expect("it is ours");
        }
        fs::write(self.output(), FORMER).expect("it is written");
    }
}

/// Whether the program began, rather than that its libraries could not be loaded.
fn has_begun(outcome: &Outcome) -> bool {
    !outcome.stderr.contains("error while loading shared libraries")
}

/// Lets every call of a client with these options fail once; returns the kinds that occurred.
fn check_client(options: &[&str]) -> BTreeSet<&'static str> {
    let Some(scene) = Scene::new() else { return BTreeSet::new() };
    let server = scene.serve().ready();
    let mut made = BTreeSet::new();
    for (call, errors) in OF_A_CLIENT {
        for error in errors {
            for k in 1.. {
                assert!(k < MOST, "{call} is called {k} times");
                scene.clear();
                let outcome = scene.fetch(&server, options).under(scene.failing(call, error, k)).run();
                let Some(fault) = scene.failed() else { break };
                made.insert(call);
                if !has_begun(&outcome) {
                    continue;
                }
                scene.assert_sound(&outcome, &fault);
                scene.assert_goes_on(&server, options, &fault);
            }
        }
    }
    made
}

#[test]
fn failed_call_of_a_mapping_client() {
    let made = check_client(&["--engine", "map", "--sync"]);
    let demanded =
        ["openat", "flock", "fallocate", "madvise", "pwrite64", "fsync", "rename", "unlink", "readv"];
    assert!(made.is_empty() || demanded.iter().all(|call| made.contains(call)), "only {made:?} were made");
}

#[test]
fn failed_call_of_a_writing_client() {
    check_client(&["--engine", "write", "--md5"]);
}

#[test]
fn failed_call_of_a_legacy_client() {
    check_client(&["--protocol", "1"]);
}

/// Lets the `k`-th such call of a server fail while a client fetches, and another one after it; whether there was one.
fn check_server(scene: &Scene, protocol: &str, call: &str, error: &str, k: u32) -> bool {
    scene.clear();
    let mut server = match scene.serve().under(scene.failing_detached(call, error, k)).try_ready() {
        Ok(server) => server,
        Err(outcome) => {
            if has_begun(&outcome) {
                outcome.assert_one_line("dtserver: ");
            }
            return true;
        }
    };
    let options = ["--protocol", protocol];
    let outcome = scene.fetch(&server, &options).run();
    let fault = scene.failed();
    scene.assert_sound(&outcome, fault.as_deref().unwrap_or(call));
    server.assert_alive();
    if let Some(fault) = &fault {
        scene.assert_serves(&server, &options, fault);
    }
    fault.is_some()
}

#[test]
fn failed_call_of_a_server() {
    let Some(scene) = Scene::new() else { return };
    for protocol in ["1", "2"] {
        for (call, errors) in OF_A_SERVER {
            for error in errors {
                let n = (1..MOST).take_while(|k| check_server(&scene, protocol, call, error, *k)).count();
                // To a client on the same machine the server sends from a mapping, and calls sendfile only where it cannot map.
                let is_used = ["accept4", "openat2", "statx"].contains(&call);
                assert!(n > 0 || !is_used, "{call} is never called");
            }
        }
    }
}

/// With `--sync` the bytes are on the disk before the output has its name, and the name before the program reports success.
#[test]
fn file_is_synced_before_it_is_renamed() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.serve().ready();
    scene.clear();
    let log = scene.log().display().to_string();
    let strace =
        ["strace", "-f", "-y", "-qq", "-o", &log, "-e", "trace=fsync,fdatasync,rename,unlink,ftruncate"];
    scene.fetch(&server, &["--sync"]).under(strace).run().assert_success();
    let calls = fs::read_to_string(scene.log()).expect("it is there");
    let folder = scene.workspace.outputs().display().to_string();
    let lines: Vec<&str> = calls.lines().collect();
    let place = |call: &str| lines.iter().rposition(|line| line.contains(call));
    let [cut, synced, renamed, folder_synced, forgotten] = [
        "ftruncate(".to_owned(),
        "/out.dtpart>".to_owned(),
        "rename(".to_owned(),
        format!("<{folder}>"),
        format!("unlink(\"{folder}/out.dtjournal\""),
    ]
    .map(|call| place(&call).unwrap_or_else(|| panic!("no {call} in {calls}")));
    assert!(
        cut < synced && synced < renamed && renamed < folder_synced && folder_synced < forgotten,
        "{calls}"
    );
}
