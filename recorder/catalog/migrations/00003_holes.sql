-- Which samples of a segment were received: gaps say what is missing on the
-- wall clock, and nothing yet said what is silence.

-- +goose Up
ALTER TABLE segments ADD COLUMN holes BLOB; -- varints: samples of media, samples of none, in turn; NULL: all is media

-- +goose Down
ALTER TABLE segments DROP COLUMN holes;
