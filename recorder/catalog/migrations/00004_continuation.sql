-- A channel that another recorder was lost with: what is missing before its
-- first packet here is a gap with this cause.

-- +goose Up
ALTER TABLE attachments ADD COLUMN continues       TEXT NOT NULL DEFAULT ''; -- the lost recorder
ALTER TABLE attachments ADD COLUMN continues_cause TEXT NOT NULL DEFAULT ''; -- empty: it begins here
ALTER TABLE attachments ADD COLUMN continues_us    INTEGER;                  -- when the lost recorder was last known to record

-- Attachments that came from another recorder and whose first packets are
-- compacted: what was missing before those is in gaps.
CREATE TABLE heard (
  channel TEXT    NOT NULL,
  num     INTEGER NOT NULL,
  PRIMARY KEY (channel, num)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE heard;
ALTER TABLE attachments DROP COLUMN continues_us;
ALTER TABLE attachments DROP COLUMN continues_cause;
ALTER TABLE attachments DROP COLUMN continues;
