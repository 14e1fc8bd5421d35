//! `health`.

use std::process::ExitCode;
use std::time::Duration;

use humantime_serde::re::humantime::parse_duration;

use super::global::{EXIT_CONFIG, Global, fail};

/// Ask the running daemon whether it serves; exits with 0 if it does.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How long to wait for the answer. A service that the socket has to start first may need longer.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
}

pub(super) fn run(global: &Global, args: &Args) -> ExitCode {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(crate::grpc::health(&config.address, args.timeout)) {
        Ok(()) => {
            println!("{} serves", config.address.display());
            ExitCode::SUCCESS
        }
        Err(why) => fail(&format!("{}: {why}", config.address.display()), 1),
    }
}
