//! Interfaces of the host that become the container's, and the host's again if the container comes to nothing.

use crate::plan::net_devices::NetDevice;
use crate::sys::clone::{NEWNET, setns};
use crate::sys::errno::ENODEV;
use crate::sys::fs;
use crate::sys::netlink::{Address, Link, Route};
use crate::sys::process;
use anyhow::{Context, Error, Result, anyhow, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The interfaces that have been moved, to be put back on failure. It holds on to the container's network namespace, which would take
/// them along in its end.
pub struct Moved {
    home: OwnedFd,
    ours: Route,
    theirs: Route,
    devices: Vec<Device>,
}

struct Device {
    name: String,
    was_up: bool,
    /// In the container's network namespace.
    index: u32,
    addresses: Vec<Address>,
}

/// Moves interfaces of husk's network namespace into another one, in order. Each keeps its hardware address, its MTU and its permanent
/// global addresses, and is set up. If one fails, all are put back.
pub fn move_all(list: &[NetDevice], namespace: BorrowedFd) -> Result<Moved> {
    let home = fs::open("/proc/self/ns/net", fs::O_RDONLY, 0)?;
    let place = |fd| fs::fstat(fd).map(|s| (s.dev, s.ino));
    if place(home.as_fd())? == place(namespace)? {
        bail!(
            "linux.netDevices: the container's network namespace is husk's own; give it another one"
        );
    }
    let ours = Route::open()?;
    let theirs = open_in(namespace, home.as_fd()).context("linux.netDevices")?;
    let mut moved = Moved {
        home,
        ours,
        theirs,
        devices: Vec::new(),
    };
    for device in list {
        if let Err(e) = moved.take(device, namespace).with_context(|| device.path()) {
            return Err(moved.put_back(e));
        }
    }
    Ok(moved)
}

/// A socket in the container's network namespace, which is what it goes on to mean after husk has come back.
fn open_in(namespace: BorrowedFd, home: BorrowedFd) -> Result<Route> {
    setns(namespace, NEWNET).context("enter the container's network namespace")?;
    let route = Route::open();
    setns(home, NEWNET).context("come back from the container's network namespace")?;
    Ok(route?)
}

impl Moved {
    fn take(&mut self, device: &NetDevice, namespace: BorrowedFd) -> Result<()> {
        let Link { index, up } = self
            .ours
            .link(&device.name)
            .context("it is not in husk's network namespace")?;
        let mut addresses = self.ours.addresses(index)?;
        addresses.retain(|a| a.is_permanent() && a.scope == 0);
        // what a template becomes is only known of a device that can be found
        let arrival = if device.is_template() {
            format!("husk{}", process::pid())
        } else {
            device.inside.clone()
        };
        match self.theirs.link(&arrival) {
            Err(e) if e.errno() == ENODEV => {}
            Ok(_) => bail!(
                "'{arrival}' already exists in the container's network namespace; give it another name, or one with %d"
            ),
            Err(e) => return Err(e.into()),
        }
        self.ours.move_to(index, namespace, &arrival)?;
        let index = self.theirs.link(&arrival)?.index;
        self.devices.push(Device {
            name: device.name.clone(),
            was_up: up,
            index,
            addresses,
        });
        if device.is_template() {
            self.theirs.rename(index, &device.inside)?;
        }
        let addresses = self.devices.last().map(|d| &d.addresses);
        for address in addresses.into_iter().flatten() {
            self.theirs.add_address(index, address)?;
        }
        Ok(self.theirs.set_up(index)?)
    }

    /// Brings all of them home, after an error, to which it appends what goes wrong. Their routes and temporary addresses are gone.
    pub fn put_back(self, mut e: Error) -> Error {
        for device in self.devices.iter().rev() {
            if let Err(left) = self.bring_home(device) {
                e = anyhow!("{e:#}; then '{}' stays away: {left:#}", device.name);
            }
        }
        e
    }

    fn bring_home(&self, device: &Device) -> Result<()> {
        self.theirs
            .move_to(device.index, self.home.as_fd(), &device.name)?;
        let index = self.ours.link(&device.name)?.index;
        for address in &device.addresses {
            self.ours.add_address(index, address)?;
        }
        if device.was_up {
            self.ours.set_up(index)?;
        }
        Ok(())
    }
}
