//! Writes the seed corpus for fuzzing into the `fuzz` folder of the workspace.

use std::fs;

use dt_testkit::corpus;
use dt_testkit::source::workspace_root;

fn main() {
    let root = workspace_root().join("fuzz/corpus");
    for seed in corpus::seeds() {
        let folder = root.join(seed.decoder);
        fs::create_dir_all(&folder).expect("a folder is made");
        fs::write(folder.join(&seed.name), &seed.bytes).expect("a seed is written");
    }
}
