//! rtnetlink(7): as much of it as moving an interface takes.
//!
//! Own code, since the crate `netlink-packet-route` knows every kind of interface and adds half a megabyte to a binary that needs
//! five messages of it.

use super::fs::{read, write};
use super::{Error, Result, lift};
use libc::{EINVAL, EPROTO};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// No interface has a longer name (`IFNAMSIZ` without its NUL).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

const NLM_F_ACK_REQUEST: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
const NLMSG_HEADER: usize = 16;
/// struct ifinfomsg
const LINK_HEADER: usize = 16;
/// struct ifaddrmsg
const ADDRESS_HEADER: usize = 8;
const ATTRIBUTE_HEADER: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub up: bool,
}

/// An address of an interface, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `AF_INET`, `AF_INET6`.
    family: u8,
    prefix: u8,
    /// `RT_SCOPE_*`: 0 is global.
    pub scope: u8,
    /// `IFA_F_*`.
    flags: u32,
    /// The index of its interface.
    link: u32,
    /// As they go back to the kernel, in its order.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Given by somebody, rather than for a time by a router's advertisement.
    pub fn is_permanent(&self) -> bool {
        self.flags & libc::IFA_F_PERMANENT != 0
    }
}

/// A socket into one network namespace: the one that it was opened in.
pub struct Route(OwnedFd);

impl Route {
    pub fn open() -> Result<Route> {
        let fd = nix::sys::socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        lift(fd, || "socket NETLINK_ROUTE".into()).map(Route)
    }

    /// The interface of a name; `ENODEV` if there is none.
    pub fn link(&self, name: &str) -> Result<Link> {
        let call = || format!("find network device '{name}'");
        let body = LinkRequest::new(0).name(name);
        let answers = self.request(libc::RTM_GETLINK, NLM_F_ACK_REQUEST, &body.0, call)?;
        let header = answers.first().and_then(|a| a.first_chunk::<LINK_HEADER>());
        let header = header.ok_or_else(|| Error::new(call(), EPROTO))?;
        Ok(Link {
            index: u32_at(header, 4),
            up: u32_at(header, 8) & libc::IFF_UP as u32 != 0,
        })
    }

    /// The addresses of an interface, of every family.
    pub fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        let call = || format!("list addresses of network device {index}");
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let all = self.request(libc::RTM_GETADDR, flags, &[0; ADDRESS_HEADER], call)?;
        let parsed = all.iter().map(|message| parse_address(message));
        let addresses: Option<Vec<Address>> = parsed.collect();
        let mut addresses = addresses.ok_or_else(|| Error::new(call(), EPROTO))?;
        addresses.retain(|a| a.link == index);
        Ok(addresses)
    }

    /// Moves an interface into another network namespace under a name that is free there. It comes down and loses its addresses and routes.
    pub fn move_to(&self, index: u32, namespace: BorrowedFd, name: &str) -> Result<()> {
        let fd = namespace.as_raw_fd() as u32;
        let body = LinkRequest::new(index)
            .name(name)
            .attribute(libc::IFLA_NET_NS_FD, &fd.to_ne_bytes());
        let call = || format!("move network device {index} as '{name}'");
        self.request(libc::RTM_NEWLINK, NLM_F_ACK_REQUEST, &body.0, call)
            .map(drop)
    }

    /// `%d` in the name becomes the first number that makes it a new one.
    pub fn rename(&self, index: u32, name: &str) -> Result<()> {
        let body = LinkRequest::new(index).name(name);
        let call = || format!("rename network device {index} to '{name}'");
        self.request(libc::RTM_NEWLINK, NLM_F_ACK_REQUEST, &body.0, call)
            .map(drop)
    }

    pub fn set_up(&self, index: u32) -> Result<()> {
        let body = LinkRequest::new(index).up();
        let call = || format!("set network device {index} up");
        self.request(libc::RTM_NEWLINK, NLM_F_ACK_REQUEST, &body.0, call)
            .map(drop)
    }

    /// Gives an address, which may be from another network namespace, to an interface.
    pub fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        // the others are states that the address had
        const TO_SET: u32 = libc::IFA_F_NODAD
            | libc::IFA_F_HOMEADDRESS
            | libc::IFA_F_MANAGETEMPADDR
            | libc::IFA_F_NOPREFIXROUTE
            | libc::IFA_F_MCAUTOJOIN;
        let a = address;
        let mut body = vec![a.family, a.prefix, 0, a.scope];
        body.extend(index.to_ne_bytes());
        for (kind, value) in &a.attributes {
            attribute(&mut body, *kind, value);
        }
        let flags = a.flags & TO_SET;
        attribute(&mut body, libc::IFA_FLAGS, &flags.to_ne_bytes());
        let flags = NLM_F_ACK_REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let call = || format!("give network device {index} address {a}");
        self.request(libc::RTM_NEWADDR, flags, &body, call)
            .map(drop)
    }

    /// Sends a request and collects what the kernel answers, up to its acknowledgement.
    fn request(
        &self,
        kind: u16,
        flags: u16,
        body: &[u8],
        call: impl Fn() -> String,
    ) -> Result<Vec<Vec<u8>>> {
        let length = (NLMSG_HEADER + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence number and sender: one request at a time, and the kernel knows us
        message.extend(body);
        let failed = |e: Error| Error::new(call(), e.errno());
        write(self.0.as_fd(), &message).map_err(failed)?;
        let mut answers = Vec::new();
        // the kernel's packets are no larger
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = read(self.0.as_fd(), &mut buffer).map_err(failed)?;
            match take(&buffer[..n], &mut answers) {
                Some(End::More) => {}
                Some(End::Done) => return Ok(answers),
                Some(End::Failed(errno)) => return Err(Error::new(call(), errno)),
                None => return Err(Error::new(call(), EPROTO)),
            }
        }
    }
}

/// What a packet says about the answer.
#[derive(Debug, PartialEq, Eq)]
enum End {
    More,
    Done,
    Failed(i32),
}

/// Takes the bodies of a packet's messages; None for a packet that is not in order.
fn take(mut packet: &[u8], answers: &mut Vec<Vec<u8>>) -> Option<End> {
    while !packet.is_empty() {
        let header = packet.first_chunk::<NLMSG_HEADER>()?;
        let length = u32_at(header, 0) as usize;
        let body = packet.get(NLMSG_HEADER..length)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_ERROR => {
                return Some(match i32::from_ne_bytes(*body.first_chunk()?) {
                    0 => End::Done,
                    errno => End::Failed(errno.checked_neg().unwrap_or(EINVAL)),
                });
            }
            NLMSG_DONE => return Some(End::Done),
            _ => answers.push(body.to_vec()),
        }
        packet = packet.get(aligned(length)..).unwrap_or_default();
    }
    Some(End::More)
}

fn parse_address(message: &[u8]) -> Option<Address> {
    let (header, mut rest) = message.split_first_chunk::<ADDRESS_HEADER>()?;
    let [family, prefix, flags, scope, ..] = *header;
    let mut address = Address {
        family,
        prefix,
        scope,
        flags: flags.into(),
        link: u32_at(header, 4),
        attributes: Vec::new(),
    };
    while !rest.is_empty() {
        let [l0, l1, k0, k1] = *rest.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        match u16::from_ne_bytes([k0, k1]) {
            // all 32 of them
            libc::IFA_FLAGS => address.flags = u32::from_ne_bytes(*value.first_chunk()?),
            // the interface's name, which it may lose, and how long it has been there
            libc::IFA_LABEL | libc::IFA_CACHEINFO => {}
            kind => address.attributes.push((kind, value.to_vec())),
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some(address)
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let of = |kind| self.attributes.iter().find(|(k, _)| *k == kind);
        // of a point-to-point interface, IFA_ADDRESS is the other end's
        let (_, bytes) = of(libc::IFA_LOCAL)
            .or(of(libc::IFA_ADDRESS))
            .cloned()
            .unwrap_or_default();
        if let Ok(bytes) = <[u8; 4]>::try_from(&*bytes) {
            write!(f, "{}/{}", Ipv4Addr::from(bytes), self.prefix)
        } else if let Ok(bytes) = <[u8; 16]>::try_from(&*bytes) {
            write!(f, "{}/{}", Ipv6Addr::from(bytes), self.prefix)
        } else {
            write!(f, "{bytes:x?}/{}", self.prefix)
        }
    }
}

/// struct ifinfomsg and its attributes.
struct LinkRequest(Vec<u8>);

impl LinkRequest {
    /// For the interface of an index; 0 if it goes by its name.
    fn new(index: u32) -> LinkRequest {
        let mut body = vec![0; LINK_HEADER];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        LinkRequest(body)
    }

    fn up(mut self) -> LinkRequest {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        self.0[8..12].copy_from_slice(&up);
        self.0[12..16].copy_from_slice(&up); // of the flags, those to change
        self
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> LinkRequest {
        attribute(&mut self.0, kind, value);
        self
    }

    fn name(self, name: &str) -> LinkRequest {
        self.attribute(libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat())
    }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// Messages and attributes begin at multiples of 4.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut m = ((NLMSG_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        m.extend(kind.to_ne_bytes());
        m.extend([0; 10]);
        m.extend(body);
        m.resize(aligned(m.len()), 0);
        m
    }

    #[test]
    fn packets_are_taken_apart() {
        let mut answers = Vec::new();
        let packet = [message(20, b"abcde"), message(20, b"fgh")].concat();
        assert_eq!(take(&packet, &mut answers), Some(End::More));
        assert_eq!(answers, [b"abcde".to_vec(), b"fgh".to_vec()]);
        let done = message(NLMSG_DONE, &[0; 4]);
        assert_eq!(take(&done, &mut answers), Some(End::Done));
        let ack = message(NLMSG_ERROR, &[0; 20]);
        assert_eq!(take(&ack, &mut answers), Some(End::Done));
        let failed = message(NLMSG_ERROR, &(-libc::ENODEV).to_ne_bytes());
        assert_eq!(take(&failed, &mut answers), Some(End::Failed(libc::ENODEV)));
        assert_eq!(answers.len(), 2);
    }

    #[test]
    fn packets_that_are_cut_off_are_refused() {
        let whole = message(20, b"abcd");
        for n in 1..whole.len() {
            assert_eq!(take(&whole[..n], &mut Vec::new()), None, "{n}");
        }
        let mut endless = whole;
        endless[0..4].copy_from_slice(&[0; 4]);
        assert_eq!(take(&endless, &mut Vec::new()), None);
    }

    #[test]
    fn addresses_keep_what_is_theirs() {
        let mut body = vec![2, 24, 0x80, 0];
        body.extend(7u32.to_ne_bytes());
        attribute(&mut body, libc::IFA_ADDRESS, &[10, 0, 0, 1]);
        attribute(&mut body, libc::IFA_LOCAL, &[10, 0, 0, 2]);
        attribute(&mut body, libc::IFA_LABEL, b"eth0\0");
        attribute(&mut body, libc::IFA_FLAGS, &0x280u32.to_ne_bytes());
        attribute(&mut body, libc::IFA_CACHEINFO, &[0xff; 16]);
        let a = parse_address(&body).unwrap();
        assert_eq!((a.link, a.scope, a.flags), (7, 0, 0x280));
        assert!(a.is_permanent());
        let kinds: Vec<u16> = a.attributes.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [libc::IFA_ADDRESS, libc::IFA_LOCAL]);
        assert_eq!(a.to_string(), "10.0.0.2/24");
        assert_eq!(parse_address(&body[..body.len() - 1]), None);
        let six = Address {
            family: 10,
            prefix: 64,
            attributes: vec![(libc::IFA_ADDRESS, [&[0xfd][..], &[0; 14], &[1]].concat())],
            ..a
        };
        assert_eq!(six.to_string(), "fd00::1/64");
    }

    #[test]
    fn the_kernel_answers() {
        let route = Route::open().unwrap();
        let lo = route.link("lo").unwrap();
        assert_eq!(lo.index, 1);
        route.addresses(lo.index).unwrap();
        let e = route.link("no-such-device").unwrap_err();
        assert_eq!(
            e.to_string(),
            "find network device 'no-such-device': no such device"
        );
    }
}
