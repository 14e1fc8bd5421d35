#![no_main]

#[path = "../../tests/hostile/archive.rs"]
mod archive;
#[path = "../../tests/hostile/unpack.rs"]
mod unpack;
#[path = "../../tests/hostile/world.rs"]
mod world;

thread_local! {
    static WORLD: world::World = {
        // libFuzzer's hook ends the process where the panic is: in the other root, where it cannot keep the input.
        drop(std::panic::take_hook());
        unpack::world()
    };
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| WORLD.with(|world| world.check(data)));
