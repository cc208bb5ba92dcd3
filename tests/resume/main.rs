//! Resuming after everything: interrupts, kill -9 of either side, damage, full disks, changed sources.

mod clients;
mod damage;
mod disks;
mod identity;
mod interrupts;
mod kills;
mod locks;
mod power;
mod proof;
mod versions;

use std::fs;
use std::path::PathBuf;

use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::journal::Journal;
use dt_testkit::process::{Outcome, Process};
use dt_testkit::programs;
use dt_testkit::programs::{Programs, Run, Server};
use dt_testkit::session::Session;
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;
use serde_json::Value;

const PROGRAMS: Programs = programs!();
const MIB: usize = 1 << 20;
const ENGINES: [&str; 2] = ["map", "write"];
const STREAMS: u8 = 4;

/// A served file, and an output that it is on its way to.
struct Scene {
    workspace: Workspace,
    server: Server,
    content: Vec<u8>,
    block: u64,
}

impl Scene {
    fn new(len: usize) -> Self {
        let workspace = Workspace::new();
        let content = workspace.serve_pattern("f", 1, len);
        let server = PROGRAMS.serve(&workspace.root()).ready();
        let block = Session::request(server.addr, "f", 1).block;
        Self { workspace, server, content, block }
    }

    fn size(&self) -> u64 {
        u64::try_from(self.content.len()).expect("it fits")
    }

    /// How many bytes two runs together may fetch twice: the blocks in flight.
    fn in_flight(&self) -> u64 {
        2 * u64::from(STREAMS) * self.block
    }

    fn output(&self) -> PathBuf {
        self.workspace.output("out")
    }

    fn part(&self) -> PathBuf {
        self.workspace.output("out.dtpart")
    }

    fn journal_path(&self) -> PathBuf {
        self.workspace.output("out.dtjournal")
    }

    fn journal(&self) -> Option<Journal> {
        Journal::read(&self.journal_path())
    }

    /// How many blocks the journal knows.
    fn recorded(&self) -> u64 {
        self.journal().map_or(0, |journal| journal.blocks())
    }

    fn fetch(&self) -> Run {
        let run = PROGRAMS.fetch(self.server.addr, STREAMS, "f", self.output());
        run.options(["--json", "--protocol", "2"])
    }

    /// A client at a rate that leaves time to disturb it.
    fn slowly(&self) -> Run {
        self.fetch().options(["--limit-rate", "12M"])
    }

    fn until_recorded(&self, client: &mut Process, blocks: u64) {
        until_true("recorded blocks", || {
            assert!(!client.has_ended(), "the client has ended: {}", client.stderr());
            self.recorded() >= blocks
        });
    }

    /// Interrupts a client when at least `blocks` are recorded; gives how many were in the end.
    fn interrupted_after(&self, blocks: u64, run: Run) -> u64 {
        let mut client = run.start();
        self.until_recorded(&mut client, blocks);
        client.signal(Signal::INT);
        client.finish_within(PATIENCE).assert_failure(130);
        self.assert_saved();
        self.recorded()
    }

    /// Interrupts an ordinary client somewhere in the middle.
    fn interrupted(&self) -> u64 {
        self.interrupted_after(20, self.slowly())
    }

    #[track_caller]
    fn assert_saved(&self) {
        self.workspace.assert_outputs(&["out.dtjournal", "out.dtpart"]);
        let len = fs::metadata(self.part()).expect("it is there").len();
        assert_eq!(len, self.size(), "the part file has the full length");
    }

    /// Fails unless `outcome` is that of a run that completed the file and fetched nothing of so many `recorded` blocks.
    #[track_caller]
    fn assert_resumed(&self, outcome: &Outcome, recorded: u64, what: &str) -> Value {
        let finished = assert_fetched(outcome, &self.output(), &self.content, what);
        let (received, resumed) = (number(&finished, "received"), number(&finished, "resumed"));
        let known = recorded * self.block;
        assert!(
            resumed + self.block >= known.min(self.size()),
            "{what}: {recorded} blocks known, {finished}"
        );
        // Second copies of blocks near the end are bounded elsewhere: on a busy machine there are some.
        let wasted = number(&finished, "wasted_bytes");
        assert!(
            received - wasted <= self.size() - resumed,
            "{what}: {recorded} blocks of {} known, {finished}",
            self.block
        );
        let events = Events::of(outcome);
        let started = events.only("started", &["resumed"]);
        assert_eq!(number(started, "resumed"), resumed, "{what}: {started}, {finished}");
        self.workspace.assert_outputs(&["out"]);
        finished
    }

    /// Runs the command again, which must resume, and makes room for the next.
    #[track_caller]
    fn resume(&self, recorded: u64, what: &str) -> Value {
        self.resume_with(self.fetch(), recorded, what)
    }

    #[track_caller]
    fn resume_with(&self, run: Run, recorded: u64, what: &str) -> Value {
        let finished = self.assert_resumed(&run.run(), recorded, what);
        fs::remove_file(self.output()).expect("it is ours");
        finished
    }

    /// Runs the command again, which must start over.
    #[track_caller]
    fn start_over(&self, what: &str) {
        self.start_over_with(self.fetch(), what);
    }

    #[track_caller]
    fn start_over_with(&self, run: Run, what: &str) {
        let finished = self.resume_with(run, 0, what);
        assert_eq!(number(&finished, "resumed"), 0, "{what}: {finished}");
    }
}
