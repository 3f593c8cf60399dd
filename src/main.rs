//! The `visage` program; everything is in the library.

fn main() -> std::process::ExitCode {
    visage::cli::main()
}
