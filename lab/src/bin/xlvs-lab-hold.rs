//! Holds a lab until it is interrupted: to look around in it with `ip netns exec`, and for the test
//! that an interrupted lab leaves nothing.

use std::process::Command;

use anyhow::Result;
use xlvs_lab::Lab;

fn main() -> Result<()> {
    let mut lab = Lab::two_network(1)?;
    if std::env::args().any(|word| word == "far") {
        lab.add_far_server()?;
    }
    let _sleeper = lab.director.spawn(Command::new("sleep").arg("600"))?;
    println!("look around: ip netns exec {} ip address; Ctrl-C removes it all", lab.director.name());
    std::thread::sleep(std::time::Duration::from_secs(600));
    Ok(())
}
