//! Which entity types and task handlers this node knows, behind uniform interfaces.

use super::{
    backup::TypeVersions,
    tap::{Tap, Tapped},
    task_queue::TaskQueue,
};
use crate::entity::{
    Context, Decision, Effect, Entity, Row, TaskOutcome, Versioned, codec, decode_command, decode_event,
    decode_payload, encode_command, encode_event, encode_payload,
};
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use std::{any::Any, collections::HashMap, marker::PhantomData, sync::Arc};

/// A state whose type only its [`EntityType`] knows.
pub type State = Box<dyn Any + Send + Sync>;

/// A decision in encoded form.
pub enum Decided {
    Accept { events: Vec<Versioned>, effects: Vec<Effect>, reply: Vec<u8> },
    Reject(Vec<u8>),
}

/// One registered [`Entity`] implementation. States handed in must be its own.
pub trait EntityType: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// In which its events and commands are written.
    fn versions(&self) -> TypeVersions;
    fn empty(&self) -> State;
    fn copy(&self, state: &State) -> State;
    fn save(&self, state: &State) -> Result<Versioned, codec::Error>;
    /// `None` if it is written in another version: fold the history instead.
    fn load(&self, stored: &Versioned) -> Result<Option<State>, codec::Error>;
    fn evolve(&self, state: &mut State, event: &Versioned) -> Result<(), codec::Error>;
    /// Decides, and on acceptance folds the new events into `state`.
    fn decide(&self, state: &mut State, command: &Versioned, context: &Context<'_>) -> Result<Decided, codec::Error>;
    fn task_finished(&self, outcome: TaskOutcome) -> Result<Option<Versioned>, codec::Error>;
    fn task_discarded(&self, handler: &str, tag: &str) -> Result<Option<Versioned>, codec::Error>;
    fn state_json(&self, stored: &Versioned) -> Result<serde_json::Value, codec::Error>;
    /// 0 for a type without lists.
    fn lists_version(&self) -> u16;
    fn rows(&self, state: &State) -> Result<Vec<Row>, codec::Error>;
    /// As `save`, of what a list carries of the state.
    fn save_listed(&self, state: &State) -> Result<Versioned, codec::Error>;
    /// Whether a state obeys its laws of conservation.
    fn check(&self, state: &State) -> Result<(), String>;
}

struct Typed<E> {
    tap: Option<Arc<dyn Tap<E>>>,
    _entity: PhantomData<fn() -> E>,
}

impl<E: Entity> Typed<E> {
    fn new(tap: Option<Arc<dyn Tap<E>>>) -> Self {
        Self { tap, _entity: PhantomData }
    }

    fn state<'a>(&self, state: &'a State) -> Result<&'a E::State, codec::Error> {
        state.downcast_ref().ok_or_else(foreign_state)
    }

    fn state_mut<'a>(&self, state: &'a mut State) -> Result<&'a mut E::State, codec::Error> {
        state.downcast_mut().ok_or_else(foreign_state)
    }
}

fn foreign_state() -> codec::Error {
    codec::Error::Malformed { what: "state", detail: "it belongs to another entity type".into() }
}

impl<E: Entity> EntityType for Typed<E> {
    fn name(&self) -> &'static str {
        E::TYPE
    }

    fn versions(&self) -> TypeVersions {
        TypeVersions { event: E::EVENT_VERSION, command: E::COMMAND_VERSION }
    }

    fn empty(&self) -> State {
        Box::new(E::State::default())
    }

    fn copy(&self, state: &State) -> State {
        match self.state(state) {
            Ok(state) => Box::new(state.clone()),
            Err(_) => self.empty(),
        }
    }

    fn save(&self, state: &State) -> Result<Versioned, codec::Error> {
        Ok(Versioned { version: E::STATE_VERSION, bytes: codec::encode_state(self.state(state)?)? })
    }

    fn load(&self, stored: &Versioned) -> Result<Option<State>, codec::Error> {
        if stored.version != E::STATE_VERSION {
            return Ok(None);
        }
        Ok(Some(Box::new(codec::decode::<E::State>("state", &stored.bytes)?)))
    }

    fn evolve(&self, state: &mut State, event: &Versioned) -> Result<(), codec::Error> {
        E::evolve(self.state_mut(state)?, &decode_event::<E>(event)?);
        Ok(())
    }

    fn decide(&self, state: &mut State, command: &Versioned, context: &Context<'_>) -> Result<Decided, codec::Error> {
        let command = decode_command::<E>(command)?;
        let state = self.state_mut(state)?;
        match E::decide(state, command, context) {
            Decision::Reject(rejection) => Ok(Decided::Reject(codec::encode("rejection", &rejection)?)),
            Decision::Accept { events, mut effects, reply } => {
                if let Some(tap) = self.tap.as_ref().filter(|_| !events.is_empty()) {
                    effects.extend(tap.effects(&Tapped { context, state, events: &events }));
                }
                let encoded = events.iter().map(encode_event::<E>).collect::<Result<_, _>>()?;
                let reply = codec::encode("reply", &reply)?;
                events.iter().for_each(|event| E::evolve(state, event));
                Ok(Decided::Accept { events: encoded, effects, reply })
            }
        }
    }

    fn task_finished(&self, outcome: TaskOutcome) -> Result<Option<Versioned>, codec::Error> {
        E::task_finished(outcome).map(|command| encode_command::<E>(&command)).transpose()
    }

    fn task_discarded(&self, handler: &str, tag: &str) -> Result<Option<Versioned>, codec::Error> {
        E::task_discarded(handler, tag).map(|command| encode_command::<E>(&command)).transpose()
    }

    fn state_json(&self, stored: &Versioned) -> Result<serde_json::Value, codec::Error> {
        let state: E::State = codec::decode("state", &stored.bytes)?;
        let json = serde_json::to_value(&state);
        json.map_err(|e| codec::Error::Malformed { what: "state", detail: e.to_string() })
    }

    fn lists_version(&self) -> u16 {
        E::LISTS_VERSION
    }

    fn rows(&self, state: &State) -> Result<Vec<Row>, codec::Error> {
        Ok(E::rows(self.state(state)?))
    }

    fn save_listed(&self, state: &State) -> Result<Versioned, codec::Error> {
        let listed = E::listed(self.state(state)?);
        Ok(Versioned { version: E::STATE_VERSION, bytes: codec::encode_state(&*listed)? })
    }

    fn check(&self, state: &State) -> Result<(), String> {
        E::check(self.state(state).map_err(|error| error.to_string())?)
    }
}

/// What a task handler is told about its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskContext {
    /// Stable across retries, failovers and restarts: use it as the key at whoever is called.
    pub idempotency_key: String,
    /// 1 for the first.
    pub attempt: u32,
    /// The entity that asked for the task.
    pub entity_type: String,
    pub entity_id: String,
}

/// Why an attempt failed, and whether to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    #[error("{0}")]
    Retry(String),
    /// No retry can help: the task ends here.
    #[error("{0}")]
    Fatal(String),
}

pub type TaskHandler =
    Arc<dyn Fn(TaskContext, Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, TaskError>> + Send + Sync>;

/// Everything registered on this node. The same on every node of a cluster, except while a new
/// version rolls out.
#[derive(Default, Clone)]
pub struct Registry {
    types: HashMap<&'static str, Arc<dyn EntityType>>,
    handlers: HashMap<String, TaskHandler>,
    queues: HashMap<String, TaskQueue>,
}

impl Registry {
    pub fn add_entity<E: Entity>(&mut self) {
        self.types.insert(E::TYPE, Arc::new(Typed::<E>::new(None)));
    }

    /// Registers an entity type, of whose decisions `tap` is told.
    pub fn add_tap<E: Entity>(&mut self, tap: Arc<dyn Tap<E>>) {
        self.types.insert(E::TYPE, Arc::new(Typed::<E>::new(Some(tap))));
    }

    pub fn add_handler(&mut self, name: &str, handler: TaskHandler) {
        self.handlers.insert(name.to_owned(), handler);
    }

    pub fn add_queue(&mut self, name: &str, queue: TaskQueue) {
        self.queues.insert(name.to_owned(), queue);
    }

    pub fn entity_type(&self, name: &str) -> Option<&Arc<dyn EntityType>> {
        self.types.get(name)
    }

    pub fn entity_types(&self) -> impl Iterator<Item = &Arc<dyn EntityType>> {
        self.types.values()
    }

    pub fn handler(&self, name: &str) -> Option<&TaskHandler> {
        self.handlers.get(name)
    }

    pub fn queue(&self, name: &str) -> Option<&TaskQueue> {
        self.queues.get(name)
    }

    pub fn queues(&self) -> impl Iterator<Item = (&str, &TaskQueue)> {
        self.queues.iter().map(|(name, queue)| (name.as_str(), queue))
    }
}

/// A handler of values as a handler of bytes.
pub fn typed_handler<P, R, F, Fut>(handler: F) -> TaskHandler
where
    P: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    F: Fn(TaskContext, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
{
    Arc::new(move |context, bytes| {
        let begun = decode_payload(bytes).map(|payload| handler(context, payload));
        Box::pin(async move {
            // What cannot be read now cannot be read at the next attempt either.
            let begun = begun.map_err(|e| TaskError::Fatal(format!("the payload cannot be read: {e}")))?;
            let output = begun.await?;
            encode_payload(output).map_err(|e| TaskError::Fatal(format!("done, but its result cannot be kept: {e}")))
        })
    })
}
