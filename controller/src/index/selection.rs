//! Which Server decides about which port of which pod.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::index::pod::Pod;
use crate::index::policies::{ByNamespace, Resource};
use crate::resources::report::ObjectId;
use crate::resources::server::Server;

type Ports = BTreeMap<u16, Arc<Resource<Server>>>;

/// Which Server decides about which port: of those that select it the oldest, of the same age the first by name.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    by_pod: HashMap<ObjectId, Ports>,
    /// Servers that have no say on a port, one port of each pair.
    pub overruled: Vec<Overruled>,
    /// Servers that select no pod.
    pub idle: Vec<Arc<Resource<Server>>>,
}

/// A Server that has no say on a port, because another has.
#[derive(Clone, Debug)]
pub struct Overruled {
    /// The Server.
    pub server: Arc<Resource<Server>>,
    /// The other.
    pub by: ObjectId,
    /// The pod.
    pub pod: ObjectId,
    /// Its port.
    pub port: u16,
}

impl Selection {
    /// Works it out for all pods.
    pub fn of<'a>(servers: &ByNamespace<Server>, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Self {
        let mut selection = Self::default();
        let mut selecting: HashSet<ObjectId> = HashSet::new();
        let mut pairs = HashMap::new();
        for pod in pods {
            let mut ports = Ports::new();
            for server in servers.of(&pod.id.namespace) {
                if !server.spec.takes(pod) {
                    continue;
                }
                selecting.insert(server.id.clone());
                for port in pod.numbers_of(&server.spec.port) {
                    let Some(first) = ports.get(&port) else {
                        ports.insert(port, server.clone());
                        continue;
                    };
                    // The least of all, so that a report says the same each time.
                    let place = (pod.id.clone(), port);
                    match pairs.entry((server.id.clone(), first.id.clone())) {
                        Entry::Vacant(vacant) => drop(vacant.insert((server.clone(), place))),
                        Entry::Occupied(mut pair) if place < pair.get().1 => pair.get_mut().1 = place,
                        Entry::Occupied(_) => {}
                    }
                }
            }
            if !ports.is_empty() {
                selection.by_pod.insert(pod.id.clone(), ports);
            }
        }
        selection.overruled = pairs
            .into_iter()
            .map(|((_, by), (server, (pod, port)))| Overruled {
                server,
                by,
                pod,
                port,
            })
            .collect();
        let idle = servers.all().filter(|server| !selecting.contains(&server.id));
        selection.idle = idle.cloned().collect();
        selection
    }

    /// The Server that decides about a port of a pod.
    pub fn server(&self, pod: &ObjectId, port: u16) -> Option<&Arc<Resource<Server>>> {
        self.by_pod.get(pod)?.get(&port)
    }
}
