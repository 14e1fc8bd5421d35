//! Serves the images of an OCI image layout on the loopback interface, for the demo.

use std::path::PathBuf;

use clap::Parser;
use testkit::Registry;

/// Serves the images of an OCI image layout on the loopback interface, until it is ended by a signal.
#[derive(Parser)]
struct Args {
    /// The image layout; its index names each image by org.opencontainers.image.ref.name, as in "test/box:1"
    #[arg(long)]
    layout: PathBuf,
    /// The port; the default is a free one, which is printed
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Answer 404 for every layer
    #[arg(long)]
    without_layers: bool,
    /// A file that gets a line for each request: method, path, status and size
    #[arg(long)]
    log: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let log = args.log.map(std::fs::File::create).transpose()?;
    let registry = Registry::start_on(&args.layout, args.port, log)?;
    if args.without_layers {
        registry.withhold_layers()?;
    }
    println!("{}", registry.host());
    loop {
        std::thread::park();
    }
}
