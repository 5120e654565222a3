//! Who holds a port, as far as `/proc` tells.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::claim;
use super::port::Port;

/// The process that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command line, at most [`Holder::COMMAND_LENGTH`] characters: in a longer one the program's name stands without its
    /// directory, and what is left out at the end is `…`. Where it has none, its short name in brackets.
    pub command: String,
}

impl Holder {
    /// Where a long command line is cut, in characters.
    pub const COMMAND_LENGTH: usize = 120;

    pub(super) fn describe(holder: Option<&Self>) -> String {
        holder.map_or_else(|| "a process that may not be looked up".to_owned(), Self::to_string)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.command)
    }
}

/// Finds the process that keeps others from listening on `address`.
///
/// `None` when nobody does, or when the process belongs to another user and this one may not read its descriptors. Blocks for
/// as long as it takes to read `/proc/*/fd`: meant for the message of a failure, not for a normal path.
pub fn describe_holder(address: SocketAddr) -> Option<Holder> {
    let tables: Vec<Entry> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        // A table that is missing (no IPv6) has no entries; the other one still counts.
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().filter_map(Entry::parse).collect::<Vec<_>>())
        .filter(|entry| entry.inode != 0 && overlaps(entry.local, address))
        .collect();
    let listener = tables.iter().find(|entry| entry.listening);
    let inode = listener.map(|entry| entry.inode).or_else(|| claimant(address)).or_else(|| {
        // A connection that has the port as its own end blocks it as well.
        tables.first().map(|entry| entry.inode)
    })?;
    owner(inode)
}

/// One line of `/proc/net/tcp` or `tcp6`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    local: SocketAddr,
    listening: bool,
    /// 0 for a connection that no process has any more (TIME_WAIT).
    inode: u64,
}

impl Entry {
    /// `sl: local remote state tx:rx tr:when retrnsmt uid timeout inode …`, proc_net_tcp.rst in the kernel's documentation.
    fn parse(line: &str) -> Option<Self> {
        const LISTEN: &str = "0A";
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = parse_address(fields.next()?)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self { local, listening: state == LISTEN, inode })
    }
}

/// `0100007F:1F90`: the address as native-endian words in hexadecimal, the port as a number in hexadecimal.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        octets.extend(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match <[u8; 4]>::try_from(octets.as_slice()) {
        Ok(four) => Ipv4Addr::from(four).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(octets.as_slice()).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether a socket on `held` keeps one from `wanted`. An unspecified address stands for all of its family, and `[::]` for
/// both: whether the socket is limited to IPv6 is not in the table.
fn overlaps(held: SocketAddr, wanted: SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    let (a, b) = (held.ip(), wanted.ip().to_canonical());
    held.port() == wanted.port() && (a == b || covers(a, b) || covers(b, a))
}

/// The inode of the claim on the port, if somebody leased it.
fn claimant(address: SocketAddr) -> Option<u64> {
    let name = format!("@{}", claim::name(Port::new(address.port())?));
    let table = std::fs::read_to_string("/proc/net/unix").ok()?;
    // `Num RefCount Protocol Flags Type St Inode Path`.
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(6);
        let inode = fields.next()?;
        if fields.next() == Some(name.as_str()) { inode.parse().ok() } else { None }
    })
}

/// The process with the lowest id that has the socket open: with several, they inherited it from that one.
fn owner(inode: u64) -> Option<Holder> {
    let link = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        descriptors
            .flatten()
            .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
            .any(|target| target.as_os_str() == link.as_str())
    };
    let mut pids: Vec<u32> = std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(has_it)?;
    Some(Holder { pid, command: command(pid) })
}

fn command(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    shown(&String::from_utf8_lossy(&line)).unwrap_or_else(|| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("[{}]", name.trim_end())
    })
}

/// A command line, whose arguments end with a NUL each, as one that fits into a message; `None` where it is empty.
fn shown(line: &str) -> Option<String> {
    let mut arguments = line.split('\0').filter(|argument| !argument.is_empty());
    let program = arguments.next()?;
    let rest: String = arguments.flat_map(|argument| [" ", argument]).collect();
    let fits = |text: &str| text.chars().nth(Holder::COMMAND_LENGTH).is_none();
    let mut text = format!("{program}{rest}");
    // A single argument with blanks is a title that the process has given itself, and no path.
    let is_path = !rest.is_empty() || !program.contains(' ');
    if let Some((_, name)) = program.rsplit_once('/').filter(|(_, name)| is_path && !name.is_empty())
        && !fits(&text)
    {
        text = format!("{name}{rest}");
    }
    if !fits(&text) {
        text = text.chars().take(Holder::COMMAND_LENGTH - 1).chain(['…']).collect();
    }
    // The text goes to a terminal, and a process chooses its own command line.
    Some(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_both_tables_are_read() {
        let four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 53143 1 0 100 0 0 10 0";
        let expected = Entry { local: address("127.0.0.1:8080"), listening: true, inode: 53143 };
        assert_eq!(Entry::parse(four), Some(expected));

        let mapped = "   1: 0000000000000000FFFF00000100007F:92DD 0000000000000000FFFF00000100007F:C0E6 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0";
        let expected = Entry { local: address("127.0.0.1:37597"), listening: false, inode: 0 };
        assert_eq!(Entry::parse(mapped), Some(expected));

        assert_eq!(Entry::parse("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(Entry::parse(""), None);
    }

    #[test]
    fn a_wildcard_covers_what_it_binds() {
        for (held, wanted, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
        ] {
            assert_eq!(overlaps(address(held), address(wanted)), expected, "{held} {wanted}");
        }
    }

    #[test]
    fn a_command_line_is_cut_where_it_is_least_missed() {
        assert_eq!(shown(""), None);
        assert_eq!(shown("/bin/server\0--port\0 80\n\0").unwrap(), "/bin/server --port  80\u{fffd}");

        let directory = "/long".repeat(30);
        assert_eq!(shown(&format!("{directory}/server\0--port\080\0")).unwrap(), "server --port 80");

        let title = format!("nginx: master process /usr/sbin/nginx -c {directory}/nginx.conf");
        let cut = title.chars().take(Holder::COMMAND_LENGTH - 1).collect::<String>();
        assert_eq!(shown(&title).unwrap(), format!("{cut}…"));
        assert!(shown(&format!("{directory}/\0-x\0")).unwrap().starts_with("/long/long"));

        let arguments = "é".repeat(Holder::COMMAND_LENGTH);
        let cut = shown(&format!("{directory}/server\0{arguments}\0")).unwrap();
        assert_eq!(
            cut,
            format!("server {}…", "é".repeat(Holder::COMMAND_LENGTH - "server …".chars().count()))
        );

        let whole = "x".repeat(Holder::COMMAND_LENGTH);
        assert_eq!(shown(&whole).unwrap(), whole);
    }
}
