//! The `dtserver` program.

fn main() -> std::process::ExitCode {
    dtserver::main()
}
