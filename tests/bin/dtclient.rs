//! `dtclient` as the tests run it: the same `main` as the released program.

fn main() -> std::process::ExitCode {
    dtclient::main()
}
