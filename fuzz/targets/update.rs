#![no_main]

#[path = "../../tests/hostile/update.rs"]
mod update;
#[path = "../../tests/hostile/world.rs"]
mod world;

thread_local! {
    static WORLD: world::World = update::world();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| WORLD.with(|world| world.check(data)));
