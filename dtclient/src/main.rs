//! The `dtclient` program.

fn main() -> std::process::ExitCode {
    dtclient::main()
}
