-- The catalogs of many recorders in one database. Times are microseconds since
-- 1970 UTC, in columns ending in _us. Every key begins with the catalog that a
-- row is from: recorders never write the same row.

-- +goose Up
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- The database's name for itself, by which recorders of one site know that they
-- share it.
CREATE TABLE identity (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id  uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO identity DEFAULT VALUES;

CREATE TABLE catalogs (
  id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  catalog     text    NOT NULL UNIQUE, -- the recorder's own name for it
  recorder    text    NOT NULL,
  grp         text    NOT NULL,
  revision    bigint  NOT NULL,        -- every row up to it is here
  told_us     bigint  NOT NULL         -- when the recorder last said so
);

CREATE TABLE attachments (
  catalog         integer NOT NULL REFERENCES catalogs,
  num             bigint  NOT NULL,
  channel         text    NOT NULL,
  session         text    NOT NULL,
  user_id         text    NOT NULL,
  user_name       text    NOT NULL,
  device          text    NOT NULL,
  profile         text    NOT NULL,
  mix             text    NOT NULL,
  copy            text    NOT NULL,
  sources         text[]  NOT NULL,
  codec           text    NOT NULL,
  reason          text    NOT NULL,
  opened_us       bigint  NOT NULL,
  closed_us       bigint,
  cause           text    NOT NULL,
  continues       text    NOT NULL,
  continues_cause text    NOT NULL,
  continues_us    bigint,
  PRIMARY KEY (catalog, num)
);
CREATE INDEX attachments_channel ON attachments (channel, opened_us);

CREATE TABLE calls (
  catalog    integer NOT NULL REFERENCES catalogs,
  id         text    NOT NULL,
  line       text    NOT NULL,
  direction  text    NOT NULL,
  kind       text    NOT NULL,
  party      text    NOT NULL,
  party_name text    NOT NULL,
  state      text    NOT NULL,
  start_us   bigint  NOT NULL,
  end_us     bigint,
  end_cause  text    NOT NULL,
  PRIMARY KEY (catalog, id)
);
CREATE INDEX calls_start ON calls (start_us);

CREATE TABLE legs (
  catalog        integer NOT NULL REFERENCES catalogs,
  id             text    NOT NULL,
  call           text    NOT NULL,
  session        text    NOT NULL,
  user_id        text    NOT NULL,
  user_name      text    NOT NULL,
  device         text    NOT NULL,
  source         text    NOT NULL,
  channels       text[]  NOT NULL,
  start_us       bigint  NOT NULL,
  end_us         bigint,
  end_cause      text    NOT NULL,
  accuracy       text    NOT NULL,
  grp            text    NOT NULL,
  secondary      boolean NOT NULL,
  interrupted_us bigint,
  -- Of its call, so that one index finds a line's or a party's legs.
  line           text    NOT NULL DEFAULT '',
  party          text    NOT NULL DEFAULT '',
  party_name     text    NOT NULL DEFAULT '',
  -- When it lasted; without an upper bound while it does.
  span           int8range GENERATED ALWAYS AS (int8range(start_us,
    CASE WHEN coalesce(end_us, interrupted_us) IS NULL THEN NULL ELSE greatest(start_us, coalesce(end_us, interrupted_us)) END)) STORED,
  PRIMARY KEY (catalog, id)
);
CREATE INDEX legs_call    ON legs (call);
CREATE INDEX legs_start   ON legs (start_us);
CREATE INDEX legs_line    ON legs (line, start_us);
CREATE INDEX legs_device  ON legs (device, start_us);
CREATE INDEX legs_user    ON legs (user_id, start_us);
CREATE INDEX legs_ongoing ON legs (start_us) WHERE end_us IS NULL AND interrupted_us IS NULL;
CREATE INDEX legs_span    ON legs USING gist (span);
CREATE INDEX legs_party   ON legs USING gin ((party || E'\n' || party_name) gin_trgm_ops);

-- Who has legs. A search for an agent finds the ids here, and then each one's
-- legs by time.
CREATE TABLE agents (
  catalog   integer NOT NULL REFERENCES catalogs,
  user_id   text    NOT NULL,
  user_name text    NOT NULL,
  PRIMARY KEY (catalog, user_id, user_name)
);
CREATE INDEX agents_text ON agents USING gin ((user_id || E'\n' || user_name) gin_trgm_ops);

CREATE TABLE segments (
  catalog       integer NOT NULL REFERENCES catalogs,
  id            text    NOT NULL,
  num           bigint  NOT NULL, -- of the attachment
  channel       text    NOT NULL,
  copy          text    NOT NULL,
  start_us      bigint  NOT NULL,
  end_us        bigint  NOT NULL,
  codec         text    NOT NULL,
  ssrc          bigint  NOT NULL,
  first_ts      bigint  NOT NULL,
  samples       bigint  NOT NULL,
  first_seq     bigint  NOT NULL,
  last_seq      bigint  NOT NULL,
  file          text    NOT NULL, -- under the recorder's media directory
  size          bigint  NOT NULL,
  sha256        text    NOT NULL,
  packets       bigint  NOT NULL,
  lost          bigint  NOT NULL,
  reordered     bigint  NOT NULL,
  duplicates    bigint  NOT NULL,
  max_jitter_us bigint  NOT NULL,
  sealed        boolean NOT NULL,
  PRIMARY KEY (catalog, id)
);
CREATE INDEX segments_channel ON segments (channel, start_us);
CREATE INDEX segments_start   ON segments (start_us);

CREATE TABLE gaps (
  catalog integer NOT NULL REFERENCES catalogs,
  segment text    NOT NULL,
  channel text    NOT NULL,
  from_us bigint  NOT NULL,
  to_us   bigint  NOT NULL,
  cause   text    NOT NULL,
  PRIMARY KEY (catalog, segment, from_us)
);
CREATE INDEX gaps_channel ON gaps (channel, catalog, from_us);

-- When call events could not be heard: by the director, or because no director
-- watched the recorder.
CREATE TABLE blind (
  catalog   integer NOT NULL REFERENCES catalogs,
  from_us   bigint  NOT NULL,
  unwatched boolean NOT NULL,
  to_us     bigint,
  PRIMARY KEY (catalog, from_us, unwatched)
);

-- +goose Down
DROP TABLE blind, gaps, segments, agents, legs, calls, attachments, catalogs, identity;
