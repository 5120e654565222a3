//! Log records: what goes to stderr, for a collector. Without what may be secret.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter, LogProcessor, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};

use super::queue::{Queue, Sender};
use super::trouble::Trouble;
use crate::telemetry::secrets::Secrets;

/// A record, and who has said it.
pub(super) type Record = (SdkLogRecord, InstrumentationScope);

/// Puts records into the queue.
#[derive(Debug)]
pub(super) struct Records(pub(super) Queue<Record>);

impl LogProcessor for Records {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.0.push((record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends records.
pub(super) struct RecordSender<E> {
    pub(super) exporter: E,
    pub(super) trouble: Trouble,
    pub(super) secrets: Secrets,
}

impl<E: LogExporter + 'static> Sender<Record> for RecordSender<E> {
    async fn send(&mut self, batch: Vec<Record>) -> Result<(), String> {
        let records: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
        let sent = self.exporter.export(LogBatch::new(&records)).await;
        sent.map_err(|error| self.secrets.redact(&self.trouble.explain(&error)).into_owned())
    }
}

/// Gives loggers whose records hold no secrets.
#[derive(Clone, Debug)]
pub struct RedactingLoggers {
    pub(super) provider: SdkLoggerProvider,
    pub(super) secrets: Secrets,
}

impl LoggerProvider for RedactingLoggers {
    type Logger = RedactingLogger;

    fn logger_with_scope(&self, scope: InstrumentationScope) -> RedactingLogger {
        RedactingLogger { logger: self.provider.logger_with_scope(scope), secrets: self.secrets.clone() }
    }
}

/// Makes records that hold no secrets.
#[derive(Debug)]
pub struct RedactingLogger {
    logger: SdkLogger,
    secrets: Secrets,
}

impl Logger for RedactingLogger {
    type LogRecord = RedactedRecord;

    fn create_log_record(&self) -> RedactedRecord {
        RedactedRecord { record: self.logger.create_log_record(), secrets: self.secrets.clone() }
    }

    fn emit(&self, record: RedactedRecord) {
        self.logger.emit(record.record);
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.logger.event_enabled(level, target, name)
    }
}

/// A record of which no part is a secret.
#[derive(Debug)]
pub struct RedactedRecord {
    record: SdkLogRecord,
    secrets: Secrets,
}

impl RedactedRecord {
    fn redacted(&self, value: AnyValue) -> AnyValue {
        match value {
            AnyValue::String(text) => AnyValue::from(self.secrets.redact(text.as_str()).into_owned()),
            other => other,
        }
    }
}

impl LogRecord for RedactedRecord {
    fn set_event_name(&mut self, name: &'static str) {
        self.record.set_event_name(name);
    }

    fn set_target<T: Into<Cow<'static, str>>>(&mut self, target: T) {
        self.record.set_target(target);
    }

    fn set_timestamp(&mut self, timestamp: SystemTime) {
        self.record.set_timestamp(timestamp);
    }

    fn set_observed_timestamp(&mut self, timestamp: SystemTime) {
        self.record.set_observed_timestamp(timestamp);
    }

    fn set_severity_text(&mut self, text: &'static str) {
        self.record.set_severity_text(text);
    }

    fn set_severity_number(&mut self, number: Severity) {
        self.record.set_severity_number(number);
    }

    fn set_body(&mut self, body: AnyValue) {
        self.record.set_body(self.redacted(body));
    }

    fn add_attributes<I, K, V>(&mut self, attributes: I)
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<Key>,
        V: Into<AnyValue>,
    {
        attributes.into_iter().for_each(|(key, value)| self.add_attribute(key, value));
    }

    fn add_attribute<K: Into<Key>, V: Into<AnyValue>>(&mut self, key: K, value: V) {
        self.record.add_attribute(key, self.redacted(value.into()));
    }

    fn set_trace_context(&mut self, trace_id: TraceId, span_id: SpanId, trace_flags: Option<TraceFlags>) {
        self.record.set_trace_context(trace_id, span_id, trace_flags);
    }
}
