#![no_main]

#[path = "../../tests/hostile/markers.rs"]
mod markers;
#[path = "../../tests/hostile/world.rs"]
mod world;

thread_local! {
    static WORLD: world::World = markers::world();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| WORLD.with(|world| world.check(data)));
