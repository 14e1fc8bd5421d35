//! `health`.

use std::process::ExitCode;

use super::{EXIT_CONFIG, Global, fail};

pub(super) fn run(global: &Global) -> ExitCode {
    let config = match global.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(crate::server::health(&config.address)) {
        Ok(()) => {
            println!("{} serves", config.address.display());
            ExitCode::SUCCESS
        }
        Err(why) => fail(&format!("{}: {why}", config.address.display()), 1),
    }
}
