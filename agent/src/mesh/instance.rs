//! Reaching a healthy instance of a service of this cluster.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schema::kind::service::{ProxyProtocol, Service};
use schema::name::ServiceName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::admission::Request;
use super::grant::Grant;
use super::resolve::Resolver;
use super::socket::Socket;
use super::{Mesh, proxy_protocol};
use crate::catalog::Instances;
use crate::health::{Health, ServiceHealth, Status};
use crate::wire::traffic::Cause;

/// Time that one address has to take the connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for all of them: whoever waits for the connection does not wait for ever.
const REACH: Duration = Duration::from_secs(7);
/// Instances that are tried for one connection.
const TRIES: usize = 4;
/// How long an instance that did not take a connection is tried last.
const SHUNNED: Duration = Duration::from_secs(2);
/// Services whose turns are kept. Beyond them, those that nobody has asked for since are forgotten.
const POOLS: usize = 4096;

/// Why no instance was reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("no instance passes its checks")]
    Unhealthy,
    #[error("its address {0} cannot be resolved: {1}")]
    Resolve(String, io::Error),
    #[error("{address} does not take the connection: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("the socket {} does not take the connection: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("it does not take the PROXY protocol's header: {0}")]
    Header(io::Error),
    #[error("none of its instances took the connection in {} s", REACH.as_secs())]
    TooLong,
}

impl Unreachable {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Unhealthy => Cause::NoInstance,
            Self::Resolve(..)
            | Self::Connect { .. }
            | Self::Socket { .. }
            | Self::Header(_)
            | Self::TooLong => Cause::Connect,
        }
    }
}

/// An instance that connections may go to.
#[derive(Debug)]
pub(super) struct Candidate {
    place: Place,
    weight: i64,
    /// How it is told who calls.
    proxy_protocol: Option<ProxyProtocol>,
    /// Until when it is tried last, in milliseconds since the pools began.
    shunned: AtomicU64,
}

#[derive(Debug)]
enum Place {
    Address(SocketAddr),
    Name(String, u16),
    Socket(PathBuf),
}

impl Candidate {
    /// `None` for one that listens nowhere.
    fn of(service: &Service, weight: u16) -> Option<Self> {
        let place = if service.socket_path.is_empty() {
            let port = service.port?;
            match service.address.as_str() {
                "" => Place::Address(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
                text => match text.parse::<IpAddr>() {
                    Ok(ip) => Place::Address(SocketAddr::new(ip, port)),
                    Err(_) => Place::Name(text.to_owned(), port),
                },
            }
        } else {
            Place::Socket(PathBuf::from(&service.socket_path))
        };
        Some(Self {
            place,
            weight: i64::from(weight),
            proxy_protocol: service.proxy_protocol,
            shunned: AtomicU64::new(0),
        })
    }
}

/// The instances of one service, and whose turn it is.
#[derive(Debug, Default)]
struct Pool {
    /// What the candidates were made of; made again when either is another.
    instances: Arc<Instances>,
    health: Option<Arc<ServiceHealth>>,
    passing: Vec<(Arc<Candidate>, i64)>,
    warning: Vec<(Arc<Candidate>, i64)>,
    /// Whether it was asked for since the pools were last swept.
    used: bool,
}

impl Pool {
    fn renew(&mut self, name: &ServiceName, instances: &Arc<Instances>, health: &Health) {
        let now = health.view().get(name).cloned();
        let same = match (&self.health, &now) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        };
        if same && Arc::ptr_eq(&self.instances, instances) {
            return;
        }
        (self.passing, self.warning) = (Vec::new(), Vec::new());
        for instance in &**instances {
            let weights = instance.service.weights;
            let (list, weight) = match health.instance(name, &instance.id).status {
                Status::Passing => (&mut self.passing, weights.passing),
                Status::Warning => (&mut self.warning, weights.warning),
                Status::Critical | Status::Maintenance => continue,
            };
            // A weight of 0 means none of the calls.
            if weight > 0
                && let Some(candidate) = Candidate::of(&instance.service, weight)
            {
                list.push((Arc::new(candidate), 0));
            }
        }
        (self.instances, self.health) = (instances.clone(), now);
    }

    /// Whose turn it is: of those that pass, else of those that warn; those that just failed after all others.
    fn next(&mut self, tried: &[Arc<Candidate>], now: u64) -> Option<Arc<Candidate>> {
        let untried = |candidate: &Arc<Candidate>| !tried.iter().any(|done| Arc::ptr_eq(done, candidate));
        let well = |candidate: &Arc<Candidate>| untried(candidate) && candidate.shunned.load(Relaxed) <= now;
        turn(&mut self.passing, well)
            .or_else(|| turn(&mut self.warning, well))
            .or_else(|| turn(&mut self.passing, untried))
            .or_else(|| turn(&mut self.warning, untried))
    }
}

/// Weighted round robin, spread evenly: each gains its weight, who has most goes and pays what all gained.
fn turn(list: &mut [(Arc<Candidate>, i64)], may: impl Fn(&Arc<Candidate>) -> bool) -> Option<Arc<Candidate>> {
    if let [(only, _)] = list {
        return may(only).then(|| only.clone());
    }
    let (mut gained, mut best) = (0, None::<usize>);
    let mut most = i64::MIN;
    for (at, (candidate, credit)) in list.iter_mut().enumerate() {
        if !may(candidate) {
            continue;
        }
        *credit += candidate.weight;
        gained += candidate.weight;
        if *credit > most {
            (most, best) = (*credit, Some(at));
        }
    }
    let (candidate, credit) = &mut list[best?];
    *credit -= gained;
    Some(candidate.clone())
}

/// The instances of every service that is called, with whose turn it is.
#[derive(Debug)]
pub(super) struct Pools {
    by_service: Mutex<HashMap<ServiceName, Pool>>,
    resolver: Resolver,
    began: Instant,
}

impl Default for Pools {
    fn default() -> Self {
        Self { by_service: Mutex::default(), resolver: Resolver::default(), began: Instant::now() }
    }
}

impl Pools {
    /// Connects to an instance that passes its checks, each in turn having as much of the calls as its weight says;
    /// where none does, to one that warns; never to one that is critical or out of service. An instance that does not
    /// take the connection is passed over, and tried last for a moment.
    async fn reach(
        &self,
        health: &Health,
        name: &ServiceName,
        instances: &Arc<Instances>,
    ) -> Result<(Socket, Arc<Candidate>), Unreachable> {
        let mut tried = Vec::new();
        let mut failed = Unreachable::Unhealthy;
        let started = Instant::now();
        while tried.len() < TRIES
            && let Some(candidate) = self.next(health, name, instances, &tried)
        {
            match self.connect(&candidate.place).await {
                Ok(socket) => {
                    socket.hurry();
                    socket.guard();
                    return Ok((socket, candidate));
                }
                Err(why) => failed = why,
            }
            candidate.shunned.store(self.elapsed(SHUNNED), Relaxed);
            if started.elapsed() > REACH {
                return Err(Unreachable::TooLong);
            }
            tried.push(candidate);
        }
        Err(failed)
    }

    fn next(
        &self,
        health: &Health,
        name: &ServiceName,
        instances: &Arc<Instances>,
        tried: &[Arc<Candidate>],
    ) -> Option<Arc<Candidate>> {
        let mut pools = self.lock();
        if pools.len() >= POOLS && !pools.contains_key(name) {
            pools.retain(|_, pool| std::mem::take(&mut pool.used));
        }
        if !pools.contains_key(name) {
            pools.insert(name.clone(), Pool::default());
        }
        let pool = pools.get_mut(name)?;
        pool.used = true;
        pool.renew(name, instances, health);
        pool.next(tried, self.elapsed(Duration::ZERO))
    }

    /// Milliseconds from the beginning until `later` than now.
    fn elapsed(&self, later: Duration) -> u64 {
        u64::try_from((self.began.elapsed() + later).as_millis()).unwrap_or(u64::MAX)
    }

    async fn connect(&self, place: &Place) -> Result<Socket, Unreachable> {
        match place {
            Place::Address(address) => tcp(*address).await,
            // Rare beside the others, so it takes no room in every connection.
            Place::Name(host, port) => Box::pin(self.by_name(host, *port)).await,
            Place::Socket(path) => {
                let connected = tokio::time::timeout(CONNECT, UnixStream::connect(path)).await;
                connected
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map(Socket::from)
                    .map_err(|source| Unreachable::Socket { path: path.clone(), source })
            }
        }
    }

    async fn by_name(&self, host: &str, port: u16) -> Result<Socket, Unreachable> {
        let resolved = self.resolver.resolve(host, port).await;
        let addresses = resolved.map_err(|error| Unreachable::Resolve(host.to_owned(), error))?;
        let mut failed = Unreachable::TooLong;
        for address in &*addresses {
            match tcp(*address).await {
                Ok(socket) => return Ok(socket),
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, Pool>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to an instance for a permit, and tells it who calls if it wants to hear it.
pub(super) async fn reach(
    mesh: &Mesh,
    request: &Request,
    grant: &Grant,
    from: Option<SocketAddr>,
) -> Result<Socket, Unreachable> {
    let Request { source, destination } = request;
    let (mut socket, candidate) =
        mesh.pools.reach(&mesh.parts.health, destination, &grant.instances()).await?;
    if let Some(ProxyProtocol::V2) = candidate.proxy_protocol {
        let header = proxy_protocol::header(source, destination, from, socket.peer());
        // A few hundred bytes into an empty buffer: it is taken at once, or the instance is gone.
        socket.write_all(&header).await.map_err(Unreachable::Header)?;
    }
    Ok(socket)
}

async fn tcp(address: SocketAddr) -> Result<Socket, Unreachable> {
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let socket = connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map(Socket::from)
        .map_err(|source| Unreachable::Connect { address, source })?;
    // On this machine the kernel tells when a process goes; elsewhere a whole machine may.
    if !address.ip().to_canonical().is_loopback() {
        socket.probe();
    }
    Ok(socket)
}
