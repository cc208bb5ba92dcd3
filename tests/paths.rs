//! Names: what they reach, and above all what they do not.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use dt_testkit::content::md5;
use dt_testkit::http::{Afterwards, Answer, exchange};
use dt_testkit::original_client::Ask;
use dt_testkit::programs;
use dt_testkit::programs::{Programs, Server};
use dt_testkit::workspace::Workspace;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

const PROGRAMS: Programs = programs!();
const DECODED: &str = "dt-target: percent-encoded";

/// A served folder with a file in it, a secret beside it, and links of all kinds.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let root = workspace.root();
    workspace.serve_pattern("file", 1, 1000);
    workspace.serve_pattern("dir/inner", 2, 2000);
    dt_testkit::content::write_pattern(&workspace.path().join("secret"), 3, 3000);
    let absolute = |path: &Path| path.canonicalize().expect("it is there");
    let links = [
        ("link", "file".into()),
        ("dir/link-up", "../file".into()),
        ("dirlink", "dir".into()),
        ("link-out", "../secret".into()),
        ("dir/link-out", "../../secret".into()),
        ("dirlink-out", "..".into()),
        ("link-to-link-out", "link-out".into()),
        ("absolute-link-in", absolute(&root.join("file"))),
        ("absolute-link-out", absolute(&workspace.path().join("secret"))),
        ("absolute-dirlink", "/".into()),
        ("dangling", "nothing".into()),
        ("loop", "loop".into()),
        ("null", "/dev/null".into()),
        ("zero", "/dev/zero".into()),
        ("fds", "/proc/self/fd".into()),
    ];
    for (name, target) in links {
        symlink(target, root.join(name)).expect("a link is made");
    }
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a FIFO is made");
    let device = mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 5));
    if let Err(error) = device {
        eprintln!("SKIPPED: a device node below the root: making one is not permitted here: {error}");
    }
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("a socket is made");
    workspace
}

fn check_missing(server: &Server, secret: &str, target: &[u8], header: Option<&str>) -> Answer {
    let ask = Ask::new(server.addr, target, 1);
    let answer = header.into_iter().fold(ask, Ask::header).answer();
    let shown = String::from_utf8_lossy(&target[..target.len().min(200)]).into_owned();
    let context = format!("{shown:?}, header {header:?}");
    assert!(!answer.body.contains(secret), "{context}: the secret's MD5 was revealed");
    answer.assert_refusal(&[404], &context);
    answer
}

#[test]
fn names_inside_the_root_are_served() {
    let workspace = workspace();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let expected = |name: &str| fs::read(workspace.root().join(name)).expect("it is there");
    for (target, name) in [
        ("file", "file"),
        ("/file", "file"),
        ("./file", "file"),
        ("dir/inner", "dir/inner"),
        ("/dir/inner", "dir/inner"),
        ("dir%2finner", "dir/inner"),
        ("%66ile", "file"),
        ("link", "file"),
        ("dir/link-up", "file"),
        ("dirlink/inner", "dir/inner"),
    ] {
        assert!(Ask::new(server.addr, target, 3).offer().download() == expected(name), "{target}");
    }
    server.assert_alive();
}

#[test]
fn names_outside_the_root_are_refused() {
    let workspace = workspace();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    let secret = fs::read(workspace.path().join("secret")).expect("it is there");
    let secret_md5 = md5(&secret);
    // The secret is there for a server that serves its folder.
    let open = PROGRAMS.serve(workspace.path()).ready();
    assert_eq!(Ask::new(open.addr, "secret", 1).offer().hash, secret_md5);

    let absolute = workspace.path().canonicalize().expect("it is there").join("secret");
    let absolute = absolute.to_str().expect("it is UTF-8");
    let targets = [
        "../secret",
        "/../secret",
        "//../secret",
        "./../secret",
        "dir/../../secret",
        "dir/..//../secret",
        "%2e%2e/secret",
        "%2E%2E/secret",
        ".%2e/secret",
        "..%2fsecret",
        "..%2Fsecret",
        "%2e%2e%2fsecret",
        "/%2e%2e%2fsecret",
        "%2fdir%2f..%2f..%2fsecret",
        "%252e%252e/secret",
        "%252e%252e%252fsecret",
        "..%252fsecret",
        "..\\secret",
        "..%5csecret",
        "%c0%ae%c0%ae/secret",
        "%c0%ae%c0%ae%c0%afsecret",
        "..%c0%afsecret",
        "%u002e%u002e/secret",
        "..;/secret",
        "..%00/secret",
        "....//secret",
        "http://127.0.0.1/../secret",
        "http://127.0.0.1/%2e%2e/secret",
        "link-out",
        "dir/link-out",
        "dirlink/link-out",
        "dirlink-out/secret",
        "link-to-link-out",
        "absolute-link-out",
        "fds/0",
        "absolute-dirlink/etc/hostname",
        absolute,
        &format!("/{absolute}"),
        &format!("absolute-dirlink{absolute}"),
        &format!("http://127.0.0.1{absolute}"),
        &absolute.replace('/', "%2f"),
        &format!("{}etc/passwd", "../".repeat(40)),
        &format!("{}etc/passwd", "%2e%2e%2f".repeat(40)),
    ];
    for target in targets {
        check_missing(&server, &secret_md5, target.as_bytes(), None);
        check_missing(&server, &secret_md5, target.as_bytes(), Some(DECODED));
    }
    server.assert_alive();
}

#[test]
fn only_regular_files_are_served() {
    let workspace = workspace();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    for target in [
        "",
        "/",
        "//",
        ".",
        "./",
        "..",
        "dir",
        "dir/",
        "dirlink",
        "file/",
        "file/x",
        "missing",
        "dir/missing",
        "missing/x",
        "dangling",
        "loop",
        "absolute-link-in",
        "fifo",
        "device",
        "socket",
        "null",
        "zero",
        "FILE",
        "file%20",
        "%",
        "%zz",
        "%2",
        "*",
    ] {
        if target.is_empty() {
            // An empty target makes no request line.
            let request = b"POST  HTTP/1.1\r\nContent-Length: 14\r\n\r\n{\"threads\": 8}";
            exchange(server.addr, &[request], Afterwards::Wait).assert_refusal(&[400, 404], "no target");
            continue;
        }
        check_missing(&server, "\0", target.as_bytes(), None);
    }
    server.assert_alive();
}

#[test]
fn names_with_nul_or_without_end_are_refused() {
    let workspace = workspace();
    let mut server = PROGRAMS.serve(&workspace.root()).ready();
    for target in ["fi%00le", "file%00", "%00file", "file%00.txt", "%00"] {
        check_missing(&server, "\0", target.as_bytes(), None);
        check_missing(&server, "\0", target.as_bytes(), Some(DECODED));
    }
    let raw = Ask::new(server.addr, b"fi\0le", 1).answer();
    raw.assert_refusal(&[400, 404], "a raw NUL");
    for len in [255, 256, 300, 4095, 4096, 5000] {
        check_missing(&server, "\0", "a".repeat(len).as_bytes(), None);
        check_missing(&server, "\0", "a/".repeat(len / 2).as_bytes(), None);
    }
    for name in ["a".repeat(64 << 10), "%61".repeat(64 << 10), "a/".repeat(32 << 10), "../".repeat(22_000)] {
        let answer = Ask::new(server.addr, &name, 1).answer();
        answer.assert_refusal(&[404, 414, 431], "64 KiB of name");
    }
    let answer = Ask::new(server.addr, "a".repeat(4 << 20), 1).answer();
    answer.assert_refusal(&[414, 431], "4 MiB of name");
    assert_eq!(Ask::new(server.addr, "file", 1).offer().download().len(), 1000);
    server.assert_alive();
}

#[test]
fn literal_name_is_tried_first() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let spaced = workspace.serve_pattern("a b", 1, 100);
    let fetch = |ask: Ask| ask.offer().download();
    assert!(fetch(Ask::new(server.addr, "a%20b", 2)) == spaced, "decoded when there is no such name");
    Ask::new(server.addr, "a%20b", 2).header("dt-target: literal").answer().assert_refusal(&[404], "literal");
    for protocol in ["1", "2"] {
        let run = PROGRAMS.fetch(server.addr, 2, "a%20b", workspace.output("out"));
        run.options(["--protocol", protocol]).run().assert_failure(3);
    }
    let literal = workspace.serve_pattern("a%20b", 2, 100);
    assert!(fetch(Ask::new(server.addr, "a%20b", 2)) == literal, "as it stands first");
    assert!(
        fetch(Ask::new(server.addr, "a%20b", 2).header(DECODED)) == spaced,
        "only decoded when it says so"
    );
    assert!(fetch(Ask::new(server.addr, "a%2520b", 2).header(DECODED)) == literal);
    let umlaut = workspace.serve_pattern("\u{fc}", 3, 100);
    assert!(fetch(Ask::new(server.addr, "\u{fc}", 2)) == umlaut, "raw UTF-8");
    assert!(fetch(Ask::new(server.addr, "%C3%BC", 2)) == umlaut, "encoded UTF-8");
}

#[test]
fn every_name_arrives_through_the_client() {
    let workspace = Workspace::new();
    let names = [
        "plain",
        "a b",
        "a%20b",
        "a%2520b",
        "a+b",
        "a#b",
        "a?b=c",
        "a&b",
        "a;b",
        "a:b",
        "http:",
        "%",
        "%41",
        "A",
        "100%",
        " leading",
        "trailing ",
        "\u{fc}n\u{ef}c\u{f6}d\u{e9}",
        "\u{65e5}\u{672c}\u{8a9e}",
        "\u{1f980}",
        "new\nline",
        "cr\r",
        "tab\t",
        "quo\"te",
        "back\\slash",
        "..dots",
        "...",
        "~",
        "dir/a b/c%20d",
        "\u{7f}",
    ];
    for (seed, name) in (1..).zip(names) {
        workspace.serve_pattern(name, seed, 100);
    }
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for name in names {
        let outcome = PROGRAMS.fetch(server.addr, 2, name, workspace.output("out")).run();
        assert_eq!(outcome.code, Some(0), "{name:?}: {outcome}");
        let received = fs::read(workspace.output("out")).expect("it is there");
        assert!(received == fs::read(workspace.root().join(name)).expect("it is there"), "{name:?}");
    }
    // A name that begins like an option.
    let content = workspace.serve_pattern("-q", 98, 100);
    PROGRAMS
        .client()
        .args(["--", &server.addr.to_string(), "1", "-q"])
        .args([workspace.output("out")])
        .run()
        .assert_success();
    assert!(fs::read(workspace.output("out")).expect("it is there") == content);
}

/// A name is bytes, there and here.
#[test]
fn name_that_is_not_utf_8_is_served() {
    let workspace = Workspace::new();
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let name = std::ffi::OsStr::from_bytes(b"latin-\xFC");
    let content = dt_testkit::content::write_pattern(&workspace.root().join(name), 99, 100);
    assert!(Ask::new(server.addr, "latin-%FC", 1).offer().download() == content);
    PROGRAMS.fetch(server.addr, 2, name, workspace.outputs().join(name)).run().assert_success();
    assert!(fs::read(workspace.outputs().join(name)).expect("it is there") == content);
    // The client means what it is given.
    PROGRAMS.fetch(server.addr, 2, "latin-%FC", workspace.output("out")).run().assert_failure(3);
}

#[test]
fn unreadable_files_are_forbidden() {
    let workspace = Workspace::new();
    workspace.serve_pattern("closed", 1, 100);
    workspace.serve_pattern("closed-dir/file", 1, 100);
    let open = workspace.serve_pattern("open", 2, 100);
    let close = |name: &str, mode| {
        let path = workspace.root().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode is set");
    };
    close("closed", 0o000);
    close("closed-dir", 0o000);
    let server = PROGRAMS.serve(&workspace.root()).unprivileged().ready();
    Ask::new(server.addr, "closed", 1).answer().assert_refusal(&[403], "a file nobody may read");
    Ask::new(server.addr, "closed-dir/file", 1).answer().assert_refusal(&[403], "below a closed folder");
    let outcome = PROGRAMS.fetch(server.addr, 2, "closed", workspace.output("out")).run();
    outcome.assert_failure(3);
    assert!(Ask::new(server.addr, "open", 1).offer().download() == open);
    close("closed-dir", 0o755);
}

/// With `/` as the root, as in the original: any regular file, and nothing else.
#[test]
fn root_folder_of_the_system_can_be_served() {
    let workspace = workspace();
    let mut server = PROGRAMS.serve(Path::new("/")).ready();
    let at = |name: &str| workspace.root().canonicalize().expect("it is there").join(name);
    let content = fs::read(at("file")).expect("it is there");
    for name in ["file", "link", "absolute-link-in"] {
        let target = at(name).to_str().expect("it is UTF-8").to_owned();
        assert!(Ask::new(server.addr, &target, 2).offer().download() == content, "{target}");
    }
    for target in ["/dev/null", "/dev/zero", "/dev/tty", "/dev/stdin", "/dev", "/"] {
        check_missing(&server, "\0", target.as_bytes(), None);
    }
    for name in ["fifo", "null", "zero", "socket"] {
        check_missing(&server, "\0", at(name).to_str().expect("it is UTF-8").as_bytes(), None);
    }
    server.assert_alive();
}

/// Checking a name and then opening it would let the link through between the two.
#[test]
fn swapped_link_never_leads_outside() {
    let workspace = workspace();
    let mut server = PROGRAMS.serve(&workspace.root()).options(["--max-transfers", "1000"]).ready();
    let secret = md5(&fs::read(workspace.path().join("secret")).expect("it is there"));
    let inner = md5(&fs::read(workspace.root().join("dir/inner")).expect("it is there"));
    // `swap/inner` is the served file or the secret, from one moment to the next.
    fs::create_dir(workspace.path().join("outside")).expect("a folder is made");
    fs::copy(workspace.path().join("secret"), workspace.path().join("outside/inner")).expect("it is copied");
    let [swap, good, bad] = ["swap", "swap-good", "swap-bad"].map(|name| workspace.root().join(name));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut seen = 0;
    std::thread::scope(|scope| {
        let ended = &stop;
        scope.spawn(move || {
            while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                for (link, target) in [(&good, "dir"), (&bad, "../outside")] {
                    symlink(target, link).expect("a link is made");
                    fs::rename(link, &swap).expect("it is swapped");
                }
            }
        });
        for _ in 0..300 {
            let answer = Ask::new(server.addr, "swap/inner", 1).answer();
            if answer.body.contains(&secret) {
                stop.store(true, std::sync::atomic::Ordering::SeqCst);
                panic!("the secret got out: {answer:?}");
            }
            seen += usize::from(answer.status == 200 && answer.body.contains(&inner));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert!(seen > 0, "the served file was never seen");
    server.assert_alive();
}
