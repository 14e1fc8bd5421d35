#![no_main]

use hostile::private_root::PrivateRoot;

thread_local! {
    static ROOT: PrivateRoot = {
        // libFuzzer's hook ends the process where the panic is: in the other root, where it cannot keep the input.
        drop(std::panic::take_hook());
        hostile::markers::private_root()
    };
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| ROOT.with(|root| root.check(data)));
