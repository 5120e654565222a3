//! What the actor needs of a process, so that tests can put another in its place.

use std::future::Future;

use tokio_util::task::TaskTracker;

use super::super::output::{Output, OutputSettings, Source, Tail};
use super::super::spec::{Helper, Spec, Stream};
use super::super::stop::StopRecipe;
use super::super::tree::{ChildTree, Ending, SpawnError, Stopped};
use super::SupervisorSettings;

/// Starts processes.
pub(super) trait Launcher: Send + 'static {
    type Process: Process;

    fn launch(&mut self, spec: Spec) -> impl Future<Output = Result<Self::Process, SpawnError>> + Send;
}

/// A started process with its tree. Dropped, it is killed.
pub(super) trait Process: Send + 'static {
    fn pid(&self) -> u32;

    /// Waits for the end of the process. Can be cancelled.
    fn wait(&mut self) -> impl Future<Output = Ending> + Send;

    /// Ends the tree and returns when it has gone. Can be cancelled, for another recipe.
    fn stop(&mut self, recipe: &StopRecipe) -> impl Future<Output = Stopped> + Send;

    /// The last lines, all of them, once the tree has gone.
    fn last_words(self) -> impl Future<Output = Vec<String>> + Send;
}

/// Starts guarded trees.
pub(super) struct TreeLauncher {
    name: String,
    helper: Helper,
    output: OutputSettings,
    tasks: TaskTracker,
}

impl TreeLauncher {
    pub(super) fn new(settings: &SupervisorSettings, tasks: TaskTracker) -> Self {
        Self {
            name: settings.name.clone(),
            helper: settings.helper.clone(),
            output: settings.output.clone(),
            tasks,
        }
    }
}

impl Launcher for TreeLauncher {
    type Process = DrainedTree;

    async fn launch(&mut self, mut spec: Spec) -> Result<DrainedTree, SpawnError> {
        spec.stdout = Stream::Piped;
        spec.stderr = Stream::Piped;
        let mut tree = ChildTree::spawn(spec, &self.helper).await?;
        let pipes = [
            tree.take_stdout().map(|pipe| (Source::Stdout, pipe)),
            tree.take_stderr().map(|pipe| (Source::Stderr, pipe)),
        ];
        let output = Output::drain(&self.name, pipes.into_iter().flatten(), self.output.clone(), &self.tasks);
        Ok(DrainedTree { tail: output.tail(), tree, output })
    }
}

/// A tree whose output is read.
pub(super) struct DrainedTree {
    tree: ChildTree,
    output: Output,
    tail: Tail,
}

impl Process for DrainedTree {
    fn pid(&self) -> u32 {
        self.tree.pid()
    }

    async fn wait(&mut self) -> Ending {
        self.tree.wait().await
    }

    async fn stop(&mut self, recipe: &StopRecipe) -> Stopped {
        self.tree.stop(recipe).await
    }

    async fn last_words(self) -> Vec<String> {
        self.output.finish().await;
        self.tail.lines()
    }
}
