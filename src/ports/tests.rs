//! Leases against real servers, strangers and processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags, fcntl_getfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept, bind, listen, socket_with, sockopt};

use super::lease::{any_on, exact_on};
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a server does that sets, or does not set, SO_REUSEADDR.
fn serve(address: SocketAddr, reuse: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, reuse)?;
    bind(&socket, &address)?;
    listen(&socket, 16)?;
    Ok(socket)
}

fn at(ip: impl Into<IpAddr>, port: Port) -> SocketAddr {
    SocketAddr::new(ip.into(), port.get())
}

/// Retries what another test's `fork` can disturb: a descriptor lives on in a forked child until that calls `exec`.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// This test binary as another process: it leases a set of ports, or listens, says which ports, and holds them until its
/// stdin ends.
struct Process {
    child: Child,
    ports: Vec<Port>,
}

const ROLE: &str = "SIDEGATE_TEST_PORTS_ROLE";

impl Process {
    fn spawn(role: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ports::tests::other_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn ready(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ports =
            lines.map(Result::unwrap).find_map(|line| Some(line.split_once("ports ")?.1.to_owned())).unwrap();
        Self { child, ports: ports.split(' ').map(|port| port.parse().unwrap()).collect() }
    }

    fn start(role: &str) -> Self {
        Self::ready(Self::spawn(role))
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
#[ignore = "the body of the process that other tests start"]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (ports, _held): (Vec<Port>, Box<dyn Send>) = match role.as_str() {
        "lease" => {
            let set = PortSet::lease(&PortRequest::default()).unwrap();
            let ports = [&set.data, &set.admin, &set.stats, &set.readiness].map(Lease::port);
            (ports.to_vec(), Box::new(set))
        }
        "listen" => {
            let server = std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
            (vec![Port::new(server.local_addr().unwrap().port()).unwrap()], Box::new(server))
        }
        other => panic!("no role {other}"),
    };
    let ports = ports.iter().map(Port::to_string).collect::<Vec<_>>().join(" ");
    let mut stdout = std::io::stdout();
    // The harness has written the test's name on the same line.
    writeln!(stdout, "ports {ports}").unwrap();
    stdout.flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_server_with_reuseaddr_listens_beside_the_lease_and_is_reached() {
    for interface in [Interface::LoopbackV4, Interface::All] {
        let lease = lease_any(interface).unwrap();
        let server = serve(lease.address(), true).unwrap();
        let _client = TcpStream::connect(at(LOOPBACK, lease.port())).unwrap();
        accept(&server).unwrap();
        // And again after the first one ended, although its connections are in TIME_WAIT by then.
        drop(server);
        eventually("a second server", || serve(lease.address(), true).ok());
    }
}

#[test]
fn a_stranger_without_reuseaddr_is_refused() {
    let lease = lease_any(Interface::LoopbackV4).unwrap();
    assert_eq!(serve(lease.address(), false).unwrap_err(), Errno::ADDRINUSE);
    assert_eq!(serve(at(Ipv4Addr::UNSPECIFIED, lease.port()), false).unwrap_err(), Errno::ADDRINUSE);
}

#[test]
fn a_lease_of_all_interfaces_holds_both_families() {
    let lease = lease_any(Interface::All).unwrap();
    for ip in [LOOPBACK, Ipv4Addr::UNSPECIFIED.into()] {
        assert_eq!(serve(at(ip, lease.port()), false).unwrap_err(), Errno::ADDRINUSE, "{ip}");
    }
    assert_eq!(lease.address().is_ipv6(), ipv6_available());
    if ipv6_available() {
        // A host may speak IPv6 and have no ::1.
        let has = |ip: &Ipv6Addr| serve(SocketAddr::new((*ip).into(), 0), false).is_ok();
        for ip in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED].into_iter().filter(has) {
            assert_eq!(serve(at(ip, lease.port()), false).unwrap_err(), Errno::ADDRINUSE, "{ip}");
        }
    }
}

#[test]
fn without_ipv6_all_interfaces_are_those_of_ipv4() {
    let lease = any_on(Ipv4Addr::UNSPECIFIED.into()).unwrap();
    assert_eq!(serve(at(LOOPBACK, lease.port()), false).unwrap_err(), Errno::ADDRINUSE);
    serve(lease.address(), true).unwrap();
}

#[test]
fn an_explicit_port_is_honoured() {
    let port = {
        let server = serve(SocketAddr::new(LOOPBACK, 0), true).unwrap();
        Port::new(SocketAddr::try_from(rustix::net::getsockname(server).unwrap()).unwrap().port()).unwrap()
    };
    let lease = eventually("the lease", || lease_exact(Interface::LoopbackV4, port).ok());
    assert_eq!((lease.port(), lease.address()), (port, at(LOOPBACK, port)));
}

#[test]
fn a_dropped_lease_gives_the_port_back() {
    let lease = lease_any(Interface::All).unwrap();
    let port = lease.port();
    drop(lease);
    let _again = eventually("the second lease", || lease_exact(Interface::All, port).ok());
}

#[test]
fn a_listener_in_the_way_is_named() {
    let other = Process::start("listen");
    for interface in [Interface::LoopbackV4, Interface::All] {
        let error = lease_exact(interface, other.ports[0]).unwrap_err();
        let LeaseError::Taken { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
        assert_eq!(holder.pid, other.child.id());
        assert!(holder.command.contains("other_process"), "{}", holder.command);
        assert!(error.to_string().contains(&format!("is taken by pid {} (", holder.pid)), "{error}");
    }
}

#[test]
fn a_lease_of_another_process_refuses_ours_names_itself_and_dies_with_it() {
    let mut other = Process::start("lease");
    for (index, port) in other.ports.clone().into_iter().enumerate() {
        let interface = if index == 0 { Interface::All } else { Interface::LoopbackV4 };
        // Also where a bind with SO_REUSEADDR would share the port: nothing listens on it.
        let error = lease_exact(interface, port).unwrap_err();
        let LeaseError::Taken { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
        assert_eq!(holder.pid, other.child.id());
        assert_eq!(serve(at(LOOPBACK, port), false).unwrap_err(), Errno::ADDRINUSE);
    }
    other.kill();
    for port in other.ports.clone() {
        let _ours = eventually("a lease after the death", || lease_exact(Interface::LoopbackV4, port).ok());
    }
}

/// A port of ours whose only trace is a connection in TIME_WAIT.
fn port_in_time_wait() -> Port {
    let server = serve(SocketAddr::new(LOOPBACK, 0), true).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&server).unwrap()).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    // Who closes first keeps the connection in TIME_WAIT.
    drop(accept(&server).unwrap());
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    drop(server);
    let port = Port::new(address.port()).unwrap();
    // Nobody listens, yet a plain bind is refused.
    eventually("the end of the server", || serve(address, true).ok());
    assert_eq!(serve(address, false).unwrap_err(), Errno::ADDRINUSE);
    port
}

#[test]
fn connections_in_time_wait_are_no_holder() {
    let port = port_in_time_wait();
    let lease = eventually("the lease", || lease_exact(Interface::LoopbackV4, port).ok());
    serve(lease.address(), true).unwrap();
}

#[test]
fn in_time_wait_too_only_one_lease_is_given() {
    let port = port_in_time_wait();
    let lease = eventually("the lease", || lease_exact(Interface::LoopbackV4, port).ok());
    for ip in [LOOPBACK, Ipv4Addr::UNSPECIFIED.into()] {
        assert!(matches!(exact_on(ip, port), Err(LeaseError::Taken { .. })), "{ip}");
    }
    drop(lease);
}

#[test]
fn a_set_honours_what_is_explicit_and_fills_the_rest() {
    let port = lease_any(Interface::LoopbackV4).unwrap().port();
    let request = PortRequest { stats: Some(port), ..PortRequest::default() };
    let set = eventually("the set", || PortSet::lease(&request).ok());
    assert_eq!(set.stats.port(), port);
    let mut ports = [&set.data, &set.admin, &set.stats, &set.readiness].map(Lease::port);
    ports.sort_unstable();
    assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
    assert!(set.data.address().ip().is_unspecified());
    for lease in [&set.admin, &set.stats, &set.readiness] {
        assert_eq!(lease.address().ip(), LOOPBACK);
    }
}

#[test]
fn a_set_that_cannot_be_leased_says_which_port_and_keeps_none() {
    let other = Process::start("listen");
    let free = lease_any(Interface::LoopbackV4).unwrap().port();
    let request = PortRequest { data: Some(free), readiness: Some(other.ports[0]), ..PortRequest::default() };
    let error = eventually("the error", || match PortSet::lease(&request).unwrap_err() {
        PortSetError::Lease { purpose: Purpose::Data, .. } => None,
        error => Some(error),
    });
    assert_eq!(error.to_string(), "the readiness port cannot be leased");
    let _lease = eventually("the lease", || lease_exact(Interface::All, free).ok());
}

#[test]
fn a_port_asked_for_twice_is_a_mistake() {
    let port = Port::new(15000);
    let error =
        PortSet::lease(&PortRequest { admin: port, readiness: port, ..PortRequest::default() }).unwrap_err();
    assert_eq!(error.to_string(), "port 15000 is asked for twice, as the admin and as the readiness port");
}

#[test]
fn children_do_not_inherit_leases() {
    let lease = lease_any(Interface::LoopbackV4).unwrap();
    assert!(fcntl_getfd(&lease).unwrap().contains(FdFlags::CLOEXEC));
    // The child holds neither the port nor the claim once we let go.
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let port = lease.port();
    drop(lease);
    let _again = eventually("the second lease", || lease_exact(Interface::LoopbackV4, port).ok());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn sixty_four_processes_share_no_port() {
    let children: Vec<Child> = (0..64).map(|_| Process::spawn("lease")).collect();
    let processes: Vec<Process> = children.into_iter().map(Process::ready).collect();
    let mut ports: Vec<Port> = processes.iter().flat_map(|process| process.ports.clone()).collect();
    assert_eq!(ports.len(), 64 * 4);
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 64 * 4);
}

/// The mechanism switched off: a port is looked up and let go, as `portpicker` does. Then the next one gets it as well, which
/// is what the test above counts.
#[test]
fn without_leases_a_port_is_given_twice() {
    let lookup = |port| std::net::TcpListener::bind((LOOPBACK, port)).ok()?.local_addr().ok();
    let first = lookup(0).unwrap();
    let again = eventually("the same port", || lookup(first.port()));
    assert_eq!(first, again);

    let port = Port::new(first.port()).unwrap();
    let lease = eventually("the same port", || exact_on(LOOPBACK, port).ok());
    assert!(matches!(exact_on(LOOPBACK, port), Err(LeaseError::Taken { .. })));
    assert_eq!(serve(lease.address(), false).unwrap_err(), Errno::ADDRINUSE);
}
