--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: artifacts; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.artifacts (
    digest character varying(64) NOT NULL,
    filename character varying(200) NOT NULL,
    media_type character varying(100) NOT NULL,
    size_bytes bigint NOT NULL,
    created_at timestamp with time zone NOT NULL
);


--
-- Name: devices; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.devices (
    name character varying(100) NOT NULL,
    capabilities json NOT NULL,
    announced_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL
);


--
-- Name: events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.events (
    search_id character varying(36) NOT NULL,
    seq integer NOT NULL,
    kind character varying(40) NOT NULL,
    data json NOT NULL,
    created_at timestamp with time zone NOT NULL
);


--
-- Name: exports; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.exports (
    id character varying(36) NOT NULL,
    search_id character varying(36) NOT NULL,
    trial_id integer NOT NULL,
    artifact_digest character varying(64),
    report json NOT NULL,
    state character varying(20) NOT NULL,
    attempt integer NOT NULL,
    lease_owner character varying(200),
    lease_expires_at timestamp with time zone,
    published_at timestamp with time zone,
    reason text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);


--
-- Name: finalists; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.finalists (
    id integer NOT NULL,
    search_id character varying(36) NOT NULL,
    trial_id integer NOT NULL,
    "values" json NOT NULL,
    details json NOT NULL,
    weights_digest character varying(64),
    state character varying(20) NOT NULL,
    attempt integer NOT NULL,
    lease_owner character varying(200),
    lease_expires_at timestamp with time zone,
    published_at timestamp with time zone,
    reason text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);


--
-- Name: finalists_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.finalists_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: finalists_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.finalists_id_seq OWNED BY public.finalists.id;


--
-- Name: measurements; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.measurements (
    id integer NOT NULL,
    device character varying(100) NOT NULL,
    fingerprint json NOT NULL,
    workload_key character varying(64) NOT NULL,
    metric character varying(40) NOT NULL,
    median double precision NOT NULL,
    lower_quartile double precision NOT NULL,
    upper_quartile double precision NOT NULL,
    samples json NOT NULL,
    anchor_ratio double precision,
    protocol json NOT NULL,
    provenance character varying(20) NOT NULL,
    trial_id integer,
    created_at timestamp with time zone NOT NULL
);


--
-- Name: measurements_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.measurements_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: measurements_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.measurements_id_seq OWNED BY public.measurements.id;


--
-- Name: preparations; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.preparations (
    id integer NOT NULL,
    search_id character varying(36) NOT NULL,
    state character varying(20) NOT NULL,
    attempt integer NOT NULL,
    lease_owner character varying(200),
    lease_expires_at timestamp with time zone,
    published_at timestamp with time zone,
    reason text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);


--
-- Name: preparations_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.preparations_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: preparations_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.preparations_id_seq OWNED BY public.preparations.id;


--
-- Name: searches; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.searches (
    id character varying(36) NOT NULL,
    name character varying(100) NOT NULL,
    state character varying(20) NOT NULL,
    resume_to character varying(20),
    spec json NOT NULL,
    idempotency_key character varying(255),
    body_digest character varying(64) NOT NULL,
    warnings json NOT NULL,
    problem json,
    activity json,
    base_key character varying(64),
    base_report json,
    waiting_for text NOT NULL,
    version integer NOT NULL,
    event_count integer NOT NULL,
    finished_count integer NOT NULL,
    planner character varying(200),
    planner_expires_at timestamp with time zone,
    is_plan_wanted boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);


--
-- Name: trials; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trials (
    id integer NOT NULL,
    search_id character varying(36) NOT NULL,
    number integer NOT NULL,
    baseline boolean NOT NULL,
    design json NOT NULL,
    design_key character varying(64) NOT NULL,
    memo json NOT NULL,
    "values" json NOT NULL,
    details json NOT NULL,
    finish_number integer,
    state character varying(20) NOT NULL,
    attempt integer NOT NULL,
    lease_owner character varying(200),
    lease_expires_at timestamp with time zone,
    published_at timestamp with time zone,
    reason text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone
);


--
-- Name: trials_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trials_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trials_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trials_id_seq OWNED BY public.trials.id;


--
-- Name: finalists id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.finalists ALTER COLUMN id SET DEFAULT nextval('public.finalists_id_seq'::regclass);


--
-- Name: measurements id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.measurements ALTER COLUMN id SET DEFAULT nextval('public.measurements_id_seq'::regclass);


--
-- Name: preparations id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.preparations ALTER COLUMN id SET DEFAULT nextval('public.preparations_id_seq'::regclass);


--
-- Name: trials id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials ALTER COLUMN id SET DEFAULT nextval('public.trials_id_seq'::regclass);


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.alembic_version VALUES ('300481c77f77');


--
-- Data for Name: artifacts; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.artifacts VALUES ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'net.onnx', 'application/onnx', 6442450944, '2026-11-23 12:30:15.123456+00');


--
-- Data for Name: devices; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.devices VALUES ('local-cpu', '{"name": "local-cpu"}', '2026-11-23 12:30:15.123456+00', '2026-11-23 12:30:15.123456+00');


--
-- Data for Name: events; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.events VALUES ('11111111-2222-3333-4444-555555555555', 1, 'state', '{"state": "queued"}', '2026-11-23 11:00:57.35771+00');


--
-- Data for Name: exports; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.exports VALUES ('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee', '11111111-2222-3333-4444-555555555555', 1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '{}', 'succeeded', 0, NULL, NULL, NULL, '', '2026-11-23 11:00:57.358614+00', NULL, NULL);


--
-- Data for Name: finalists; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.finalists VALUES (1, '11111111-2222-3333-4444-555555555555', 1, '{"accuracy": 0.89}', '{}', NULL, 'succeeded', 0, NULL, NULL, NULL, '', '2026-11-23 11:00:57.35974+00', NULL, NULL);


--
-- Data for Name: measurements; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.measurements VALUES (1, 'local-cpu', '{"cpu": "x"}', 'wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww', 'latency_s', 0.001, 0.0009, 0.002, '[0.001]', NULL, '{"batch": 1}', 'measured', 1, '2026-11-23 11:00:57.361159+00');


--
-- Data for Name: preparations; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.preparations VALUES (1, '11111111-2222-3333-4444-555555555555', 'succeeded', 0, NULL, NULL, NULL, '', '2026-11-23 11:00:57.354684+00', NULL, NULL);


--
-- Data for Name: searches; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.searches VALUES ('11111111-2222-3333-4444-555555555555', 'kept', 'succeeded', NULL, '{"name": "kept", "budget": {"trials": 2}}', 'key', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '[]', NULL, NULL, NULL, NULL, '', 1, 1, 1, NULL, NULL, false, '2026-11-23 12:30:15.123456+00', '2026-11-23 11:00:57.353058+00', NULL, NULL);


--
-- Data for Name: trials; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trials VALUES (1, '11111111-2222-3333-4444-555555555555', 0, false, '{"channels/block1.pointwise": 48, "precision/block1": "w8a8"}', 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk', '{}', '{"accuracy": 0.9}', '{}', 1, 'succeeded', 2, NULL, NULL, NULL, '', '2026-11-23 11:00:57.356115+00', NULL, NULL);


--
-- Name: finalists_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.finalists_id_seq', 1, true);


--
-- Name: measurements_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.measurements_id_seq', 1, true);


--
-- Name: preparations_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.preparations_id_seq', 1, true);


--
-- Name: trials_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trials_id_seq', 1, true);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: artifacts pk_artifacts; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT pk_artifacts PRIMARY KEY (digest);


--
-- Name: devices pk_devices; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.devices
    ADD CONSTRAINT pk_devices PRIMARY KEY (name);


--
-- Name: events pk_events; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT pk_events PRIMARY KEY (search_id, seq);


--
-- Name: exports pk_exports; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.exports
    ADD CONSTRAINT pk_exports PRIMARY KEY (id);


--
-- Name: finalists pk_finalists; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.finalists
    ADD CONSTRAINT pk_finalists PRIMARY KEY (id);


--
-- Name: measurements pk_measurements; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.measurements
    ADD CONSTRAINT pk_measurements PRIMARY KEY (id);


--
-- Name: preparations pk_preparations; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.preparations
    ADD CONSTRAINT pk_preparations PRIMARY KEY (id);


--
-- Name: searches pk_searches; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searches
    ADD CONSTRAINT pk_searches PRIMARY KEY (id);


--
-- Name: trials pk_trials; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials
    ADD CONSTRAINT pk_trials PRIMARY KEY (id);


--
-- Name: finalists uq_finalists_trial_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.finalists
    ADD CONSTRAINT uq_finalists_trial_id UNIQUE (trial_id);


--
-- Name: measurements uq_measurements_trial_id_metric; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.measurements
    ADD CONSTRAINT uq_measurements_trial_id_metric UNIQUE (trial_id, metric);


--
-- Name: preparations uq_preparations_search_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.preparations
    ADD CONSTRAINT uq_preparations_search_id UNIQUE (search_id);


--
-- Name: searches uq_searches_idempotency_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.searches
    ADD CONSTRAINT uq_searches_idempotency_key UNIQUE (idempotency_key);


--
-- Name: trials uq_trials_search_id_design_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials
    ADD CONSTRAINT uq_trials_search_id_design_key UNIQUE (search_id, design_key);


--
-- Name: trials uq_trials_search_id_number; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials
    ADD CONSTRAINT uq_trials_search_id_number UNIQUE (search_id, number);


--
-- Name: ix_exports_search_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_exports_search_id ON public.exports USING btree (search_id);


--
-- Name: ix_exports_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_exports_state ON public.exports USING btree (state);


--
-- Name: ix_finalists_search_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_finalists_search_id ON public.finalists USING btree (search_id);


--
-- Name: ix_finalists_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_finalists_state ON public.finalists USING btree (state);


--
-- Name: ix_measurements_workload_key; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_measurements_workload_key ON public.measurements USING btree (workload_key);


--
-- Name: ix_preparations_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_preparations_state ON public.preparations USING btree (state);


--
-- Name: ix_searches_created_at_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_searches_created_at_id ON public.searches USING btree (created_at, id);


--
-- Name: ix_searches_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_searches_state ON public.searches USING btree (state);


--
-- Name: ix_trials_search_id_finish_number; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_trials_search_id_finish_number ON public.trials USING btree (search_id, finish_number);


--
-- Name: ix_trials_search_id_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_trials_search_id_state ON public.trials USING btree (search_id, state, baseline, published_at);


--
-- Name: ix_trials_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_trials_state ON public.trials USING btree (state);


--
-- Name: events fk_events_search_id_searches; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.events
    ADD CONSTRAINT fk_events_search_id_searches FOREIGN KEY (search_id) REFERENCES public.searches(id);


--
-- Name: exports fk_exports_artifact_digest_artifacts; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.exports
    ADD CONSTRAINT fk_exports_artifact_digest_artifacts FOREIGN KEY (artifact_digest) REFERENCES public.artifacts(digest);


--
-- Name: exports fk_exports_search_id_searches; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.exports
    ADD CONSTRAINT fk_exports_search_id_searches FOREIGN KEY (search_id) REFERENCES public.searches(id);


--
-- Name: exports fk_exports_trial_id_trials; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.exports
    ADD CONSTRAINT fk_exports_trial_id_trials FOREIGN KEY (trial_id) REFERENCES public.trials(id);


--
-- Name: finalists fk_finalists_search_id_searches; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.finalists
    ADD CONSTRAINT fk_finalists_search_id_searches FOREIGN KEY (search_id) REFERENCES public.searches(id);


--
-- Name: finalists fk_finalists_trial_id_trials; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.finalists
    ADD CONSTRAINT fk_finalists_trial_id_trials FOREIGN KEY (trial_id) REFERENCES public.trials(id);


--
-- Name: measurements fk_measurements_trial_id_trials; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.measurements
    ADD CONSTRAINT fk_measurements_trial_id_trials FOREIGN KEY (trial_id) REFERENCES public.trials(id);


--
-- Name: preparations fk_preparations_search_id_searches; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.preparations
    ADD CONSTRAINT fk_preparations_search_id_searches FOREIGN KEY (search_id) REFERENCES public.searches(id);


--
-- Name: trials fk_trials_search_id_searches; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials
    ADD CONSTRAINT fk_trials_search_id_searches FOREIGN KEY (search_id) REFERENCES public.searches(id);


--
-- PostgreSQL database dump complete
--


