#![no_main]

use quorate::fuzzing::GOSSIP as TARGET;

libfuzzer_sys::fuzz_target!(init: quorate_fuzz::begin(TARGET), |data: &[u8]| (TARGET.run)(data));
