BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('300481c77f77');
CREATE TABLE artifacts (
	digest VARCHAR(64) NOT NULL, 
	filename VARCHAR(200) NOT NULL, 
	media_type VARCHAR(100) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_artifacts PRIMARY KEY (digest)
);
INSERT INTO "artifacts" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','net.onnx','application/onnx',6442450944,'2026-11-23 12:30:15.123456');
CREATE TABLE devices (
	name VARCHAR(100) NOT NULL, 
	capabilities JSON NOT NULL, 
	announced_at DATETIME NOT NULL, 
	seen_at DATETIME NOT NULL, 
	CONSTRAINT pk_devices PRIMARY KEY (name)
);
INSERT INTO "devices" VALUES('local-cpu','{"name": "local-cpu"}','2026-11-23 12:30:15.123456','2026-11-23 12:30:15.123456');
CREATE TABLE events (
	search_id VARCHAR(36) NOT NULL, 
	seq INTEGER NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	data JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (search_id, seq), 
	CONSTRAINT fk_events_search_id_searches FOREIGN KEY(search_id) REFERENCES searches (id)
);
INSERT INTO "events" VALUES('11111111-2222-3333-4444-555555555555',1,'state','{"state": "queued"}','2026-11-23 11:00:56.551211');
CREATE TABLE exports (
	id VARCHAR(36) NOT NULL, 
	search_id VARCHAR(36) NOT NULL, 
	trial_id INTEGER NOT NULL, 
	artifact_digest VARCHAR(64), 
	report JSON NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	attempt INTEGER NOT NULL, 
	lease_owner VARCHAR(200), 
	lease_expires_at DATETIME, 
	published_at DATETIME, 
	reason TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_exports PRIMARY KEY (id), 
	CONSTRAINT fk_exports_artifact_digest_artifacts FOREIGN KEY(artifact_digest) REFERENCES artifacts (digest), 
	CONSTRAINT fk_exports_search_id_searches FOREIGN KEY(search_id) REFERENCES searches (id), 
	CONSTRAINT fk_exports_trial_id_trials FOREIGN KEY(trial_id) REFERENCES trials (id)
);
INSERT INTO "exports" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','11111111-2222-3333-4444-555555555555',1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','{}','succeeded',0,NULL,NULL,NULL,'','2026-11-23 11:00:56.551784',NULL,NULL);
CREATE TABLE finalists (
	id INTEGER NOT NULL, 
	search_id VARCHAR(36) NOT NULL, 
	trial_id INTEGER NOT NULL, 
	"values" JSON NOT NULL, 
	details JSON NOT NULL, 
	weights_digest VARCHAR(64), 
	state VARCHAR(20) NOT NULL, 
	attempt INTEGER NOT NULL, 
	lease_owner VARCHAR(200), 
	lease_expires_at DATETIME, 
	published_at DATETIME, 
	reason TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_finalists PRIMARY KEY (id), 
	CONSTRAINT fk_finalists_search_id_searches FOREIGN KEY(search_id) REFERENCES searches (id), 
	CONSTRAINT fk_finalists_trial_id_trials FOREIGN KEY(trial_id) REFERENCES trials (id), 
	CONSTRAINT uq_finalists_trial_id UNIQUE (trial_id)
);
INSERT INTO "finalists" VALUES(1,'11111111-2222-3333-4444-555555555555',1,'{"accuracy": 0.89}','{}',NULL,'succeeded',0,NULL,NULL,NULL,'','2026-11-23 11:00:56.556648',NULL,NULL);
CREATE TABLE measurements (
	id INTEGER NOT NULL, 
	device VARCHAR(100) NOT NULL, 
	fingerprint JSON NOT NULL, 
	workload_key VARCHAR(64) NOT NULL, 
	metric VARCHAR(40) NOT NULL, 
	median DOUBLE NOT NULL, 
	lower_quartile DOUBLE NOT NULL, 
	upper_quartile DOUBLE NOT NULL, 
	samples JSON NOT NULL, 
	anchor_ratio DOUBLE, 
	protocol JSON NOT NULL, 
	provenance VARCHAR(20) NOT NULL, 
	trial_id INTEGER, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_measurements PRIMARY KEY (id), 
	CONSTRAINT fk_measurements_trial_id_trials FOREIGN KEY(trial_id) REFERENCES trials (id), 
	CONSTRAINT uq_measurements_trial_id_metric UNIQUE (trial_id, metric)
);
INSERT INTO "measurements" VALUES(1,'local-cpu','{"cpu": "x"}','wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww','latency_s',0.001,0.0009,0.002,'[0.001]',NULL,'{"batch": 1}','measured',1,'2026-11-23 11:00:56.557369');
CREATE TABLE preparations (
	id INTEGER NOT NULL, 
	search_id VARCHAR(36) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	attempt INTEGER NOT NULL, 
	lease_owner VARCHAR(200), 
	lease_expires_at DATETIME, 
	published_at DATETIME, 
	reason TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_preparations PRIMARY KEY (id), 
	CONSTRAINT fk_preparations_search_id_searches FOREIGN KEY(search_id) REFERENCES searches (id), 
	CONSTRAINT uq_preparations_search_id UNIQUE (search_id)
);
INSERT INTO "preparations" VALUES(1,'11111111-2222-3333-4444-555555555555','succeeded',0,NULL,NULL,NULL,'','2026-11-23 11:00:56.549546',NULL,NULL);
CREATE TABLE searches (
	id VARCHAR(36) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	resume_to VARCHAR(20), 
	spec JSON NOT NULL, 
	idempotency_key VARCHAR(255), 
	body_digest VARCHAR(64) NOT NULL, 
	warnings JSON NOT NULL, 
	problem JSON, 
	activity JSON, 
	base_key VARCHAR(64), 
	base_report JSON, 
	waiting_for TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	event_count INTEGER NOT NULL, 
	finished_count INTEGER NOT NULL, 
	planner VARCHAR(200), 
	planner_expires_at DATETIME, 
	is_plan_wanted BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_searches PRIMARY KEY (id), 
	CONSTRAINT uq_searches_idempotency_key UNIQUE (idempotency_key)
);
INSERT INTO "searches" VALUES('11111111-2222-3333-4444-555555555555','kept','succeeded',NULL,'{"name": "kept", "budget": {"trials": 2}}','key','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','[]',NULL,NULL,NULL,NULL,'',1,1,1,NULL,NULL,0,'2026-11-23 12:30:15.123456','2026-11-23 11:00:56.548427',NULL,NULL);
CREATE TABLE trials (
	id INTEGER NOT NULL, 
	search_id VARCHAR(36) NOT NULL, 
	number INTEGER NOT NULL, 
	baseline BOOLEAN NOT NULL, 
	design JSON NOT NULL, 
	design_key VARCHAR(64) NOT NULL, 
	memo JSON NOT NULL, 
	"values" JSON NOT NULL, 
	details JSON NOT NULL, 
	finish_number INTEGER, 
	state VARCHAR(20) NOT NULL, 
	attempt INTEGER NOT NULL, 
	lease_owner VARCHAR(200), 
	lease_expires_at DATETIME, 
	published_at DATETIME, 
	reason TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_trials PRIMARY KEY (id), 
	CONSTRAINT fk_trials_search_id_searches FOREIGN KEY(search_id) REFERENCES searches (id), 
	CONSTRAINT uq_trials_search_id_design_key UNIQUE (search_id, design_key), 
	CONSTRAINT uq_trials_search_id_number UNIQUE (search_id, number)
);
INSERT INTO "trials" VALUES(1,'11111111-2222-3333-4444-555555555555',0,0,'{"channels/block1.pointwise": 48, "precision/block1": "w8a8"}','kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk','{}','{"accuracy": 0.9}','{}',1,'succeeded',2,NULL,NULL,NULL,'','2026-11-23 11:00:56.550198',NULL,NULL);
CREATE INDEX ix_searches_created_at_id ON searches (created_at, id);
CREATE INDEX ix_searches_state ON searches (state);
CREATE INDEX ix_preparations_state ON preparations (state);
CREATE INDEX ix_trials_search_id_finish_number ON trials (search_id, finish_number);
CREATE INDEX ix_trials_search_id_state ON trials (search_id, state, baseline, published_at);
CREATE INDEX ix_trials_state ON trials (state);
CREATE INDEX ix_exports_search_id ON exports (search_id);
CREATE INDEX ix_exports_state ON exports (state);
CREATE INDEX ix_finalists_search_id ON finalists (search_id);
CREATE INDEX ix_finalists_state ON finalists (state);
CREATE INDEX ix_measurements_workload_key ON measurements (workload_key);
COMMIT;
