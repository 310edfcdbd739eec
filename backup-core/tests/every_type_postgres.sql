-- Every built-in type, edge values, odd names, and every kind of object a dump knows. Roles: anna, "odd ""role""; x".
CREATE EXTENSION hstore;
CREATE EXTENSION citext WITH SCHEMA public;
CREATE EXTENSION postgres_fdw;
CREATE SCHEMA "Shop; Two";
CREATE SCHEMA api AUTHORIZATION anna;
CREATE TYPE mood AS ENUM ('sad', 'o''k', 'ha;ppy');
CREATE TYPE pair AS (a int, "b c" text);
CREATE TYPE floats AS RANGE (subtype = float8);
CREATE DOMAIN posint AS int CHECK (VALUE > 0) DEFAULT 7;
CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
CREATE TABLE every_type (
  id bigint GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 3) PRIMARY KEY,
  a_bool boolean, a_small smallint, an_int integer, a_big bigint, a_real real, a_double double precision,
  a_numeric numeric, a_money money, a_text text, a_char char(5), a_varchar varchar(20), a_qchar "char", a_name name,
  a_bytea bytea, a_date date, a_time time, a_timetz timetz, a_ts timestamp, a_tstz timestamptz, an_interval interval,
  a_uuid uuid, a_json json, a_jsonb jsonb, an_xml xml, an_inet inet, a_cidr cidr, a_mac macaddr, a_mac8 macaddr8,
  a_bit bit(5), a_varbit bit varying, a_point point, a_line line, a_lseg lseg, a_box box, a_path path, a_polygon polygon,
  a_circle circle, a_tsvector tsvector, a_tsquery tsquery, an_oid oid, a_regclass regclass, a_lsn pg_lsn,
  an_int4range int4range, a_tstzrange tstzrange, a_multirange int4multirange, a_floats floats,
  ints int[], texts text[], matrix int[][], moods mood[], a_pair pair, pairs pair[], a_mood mood, a_posint posint,
  a_hstore hstore, a_citext citext, a_jsonpath jsonpath, a_tid tid, a_xid8 xid8, a_german text COLLATE german,
  doubled int GENERATED ALWAYS AS (an_int * 2) STORED
);
INSERT INTO every_type (a_text) VALUES (NULL), (''), ('\N'), (E'\\'), (E'tab\tnew\nline\rcr\b\f\v\\.'), ('\.'), (E'\\.\n\\.'), ('🎁 ü Ω'), ('NULL'), (E'\x01\x7f'), (' lead and trail ');
INSERT INTO every_type (a_bool, a_small, an_int, a_big, a_real, a_double, a_numeric, a_money) VALUES
  (true, -32768, -1073741824, -9223372036854775808, '-Infinity', 'NaN', 'NaN', '-92233720368547758.08'),
  (false, 32767, 1073741823, 9223372036854775807, 3.4028235e38, 1.7976931348623157e308, 1e1000, '92233720368547758.07'),
  (NULL, 0, 0, 0, '-0', 5e-324, 0.000000000000000000000000000000000000001, 0),
  (true, 1, 2, 3, 0.1, 0.1, 'Infinity', 1.5), (true, 1, 2, 3, 16777215, 0.30000000000000004, '-Infinity', 1.5);
INSERT INTO every_type (a_char, a_varchar, a_qchar, a_name, a_bytea) VALUES ('ab', 'x  ', 'q', 'name', '\x00ff5c0a09'), ('', '', '', '', ''), ('     ', ' ', E'\\', 'n', decode('5c4e', 'hex'));
INSERT INTO every_type (a_date, a_time, a_timetz, a_ts, a_tstz, an_interval) VALUES
  ('4713-01-01 BC', '24:00:00', '23:59:59.999999-15:59', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999+00', '-178000000 years'),
  ('infinity', '00:00:00.000001', '00:00:00+15:59', 'infinity', '-infinity', '1 year -2 mons 3 days -04:05:06.789'),
  ('5874897-12-31', '12:00', '12:00+00', '1999-12-31 23:59:59.5', '2026-03-29 01:59:59+00', 'P0D');
INSERT INTO every_type (a_uuid, a_json, a_jsonb, an_xml, an_inet, a_cidr, a_mac, a_mac8, a_bit, a_varbit) VALUES
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"b": 1,  "a": [1.0, null, "\u00e9"], "a": 2}', '{"z": 1e10, "a": {"b": "\\n"}}', '<a b="1">&lt;ü</a>', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B''),
  (NULL, 'null', 'null', 'content <b/>', '192.168.0.1', '::/0', NULL, NULL, B'00000', B'1101');
INSERT INTO every_type (a_point, a_line, a_lseg, a_box, a_path, a_polygon, a_circle) VALUES ('(1.1,-2e300)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(1,1),5>'), ('(NaN,Infinity)', NULL, NULL, NULL, '((0,0),(1,1))', NULL, '<(0,0),0>');
INSERT INTO every_type (a_tsvector, a_tsquery, an_oid, a_regclass, a_lsn, an_int4range, a_tstzrange, a_multirange, a_floats) VALUES
  ('''it''''s'':1A fat:2B', '''fat'' & (''rat'' | !''cat'':*A)', 4294967295, 'pg_class', '16/B374D848', '[1,10)', '(,2026-01-01 00:00+00]', '{[1,3),[5,9)}', '[-Infinity,1.5]'), ('', '', 0, 'pg_type', '0/0', 'empty', '(,)', '{}', 'empty');
INSERT INTO every_type (ints, texts, matrix, moods, a_pair, pairs, a_mood, a_posint, a_hstore, a_citext, a_jsonpath, a_tid, a_xid8, a_german) VALUES
  ('{1,NULL,3}', ARRAY['a,b', 'q"uote', 'back\slash', 'NULL', NULL, '', '{}', E'n\nl'], '[0:1][2:3]={{1,2},{3,4}}', '{sad,o''k,"ha;ppy"}', ROW(1, 'x"y,(z)'), ARRAY[ROW(NULL, ''), ROW(2, NULL)]::pair[], 'ha;ppy', 1, 'a=>"1 \" 2", b=>NULL', 'CaSe', '$.a[*] ? (@ > 1)', '(1,2)', '18446744073709551615', 'Ärger');
CREATE TABLE "Shop; Two"."odd ""name""; --" ("select" int PRIMARY KEY, "a b" text DEFAULT 'x;''y' NOT NULL, "ümlaut🎁" text, "$1" text, "\." text);
INSERT INTO "Shop; Two"."odd ""name""; --" SELECT g, 'v' || g, repeat('x', g % 7), NULL, '\.' FROM generate_series(1, 2000) g;
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE only_generated (a int GENERATED ALWAYS AS (7) STORED);
INSERT INTO only_generated DEFAULT VALUES;
CREATE TABLE dropped (a int, b text, c int); ALTER TABLE dropped DROP COLUMN b; INSERT INTO dropped VALUES (1, 2);
CREATE TABLE empty_table (a int);
CREATE TABLE wide (id int PRIMARY KEY, big text); ALTER TABLE wide ALTER COLUMN big SET STORAGE EXTERNAL;
INSERT INTO wide VALUES (1, repeat('0123456789', 300000)), (2, repeat(E'\\\n', 700000)), (3, 'small');
ALTER TABLE wide SET (autovacuum_enabled = false, fillfactor = 50); ALTER TABLE wide ALTER COLUMN id SET STATISTICS 500;
-- Updated and deleted rows leave holes: the order of what is left has to stay.
CREATE TABLE holes (id int PRIMARY KEY, v text); INSERT INTO holes SELECT g, 'v' || g FROM generate_series(1, 5000) g;
DELETE FROM holes WHERE id % 3 = 0; UPDATE holes SET v = v || '!' WHERE id % 7 = 0;
CREATE UNLOGGED TABLE unlogged (a int); INSERT INTO unlogged VALUES (1);
CREATE TABLE parent (id int, v text); CREATE TABLE child (extra int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c', 3);
CREATE TABLE parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_2025 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (id);
CREATE TABLE parts_2025_1 PARTITION OF parts_2025 FOR VALUES IN (1, 2, 3);
CREATE TABLE parts_default PARTITION OF parts DEFAULT;
INSERT INTO parts VALUES (1, '2025-05-05'), (2, '2025-06-06'), (9, '2031-01-01');
CREATE INDEX parts_at ON parts (at);
CREATE TABLE refs (id int PRIMARY KEY, part_id int, part_at date, self int REFERENCES refs DEFERRABLE INITIALLY DEFERRED, FOREIGN KEY (part_id, part_at) REFERENCES parts);
INSERT INTO refs VALUES (1, 1, '2025-05-05', 2), (2, NULL, NULL, 1);
CREATE TABLE not_valid (a int); INSERT INTO not_valid VALUES (-1); ALTER TABLE not_valid ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
ALTER TABLE not_valid ADD CONSTRAINT nobody FOREIGN KEY (a) REFERENCES refs NOT VALID;
CREATE TABLE bookings (room int, during tsrange, EXCLUDE USING gist (during WITH &&)); INSERT INTO bookings VALUES (1, '[2026-01-01,2026-01-02)');
CREATE INDEX "index; on" ON every_type (lower(a_text), an_int DESC NULLS LAST) INCLUDE (id) WHERE an_int IS NOT NULL;
CREATE INDEX ON every_type USING gin (a_jsonb jsonb_path_ops); CREATE INDEX ON every_type USING brin (a_tstz); CREATE INDEX ON every_type USING hash (a_uuid);
CREATE STATISTICS some_statistics (dependencies, mcv) ON an_int, a_big FROM every_type;
ALTER TABLE holes CLUSTER ON holes_pkey; ALTER TABLE wide REPLICA IDENTITY FULL;
CREATE SEQUENCE counted AS smallint MINVALUE -5 START -3 CYCLE CACHE 4; SELECT nextval('counted'), nextval('counted');
CREATE SEQUENCE untouched START 42; CREATE SEQUENCE "odd'seq" OWNED BY dropped.c; SELECT setval('"odd''seq"', 99);
CREATE FUNCTION add(a int, b int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE AS $f$ SELECT a + b; -- ; $$
$f$;
CREATE PROCEDURE nothing() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION api.standard(x int) RETURNS int LANGUAGE sql STABLE BEGIN ATOMIC SELECT CASE WHEN x > 1 THEN 1 ELSE 2 END; END;
CREATE AGGREGATE product(int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
CREATE FUNCTION same(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).a = ($2).a';
CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same);
CREATE CAST (mood AS int) WITH INOUT AS ASSIGNMENT;
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
CREATE VIEW a_view AS SELECT id, a_text FROM every_type WITH CASCADED CHECK OPTION;
CREATE VIEW on_view WITH (security_barrier) AS SELECT * FROM a_view;
CREATE RULE protect AS ON DELETE TO "Shop; Two"."odd ""name""; --" WHERE old."select" = 1 DO INSTEAD ( SELECT 1; SELECT 2; );
CREATE MATERIALIZED VIEW filled AS SELECT count(*) AS n FROM every_type; CREATE MATERIALIZED VIEW on_filled AS SELECT n * 2 AS m FROM filled;
CREATE UNIQUE INDEX ON on_filled (m);
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS x WITH NO DATA;
CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER "fires; on" BEFORE UPDATE OF v ON holes FOR EACH ROW WHEN (old.v IS DISTINCT FROM new.v) EXECUTE FUNCTION trig('a;b');
CREATE TRIGGER disabled AFTER INSERT ON holes FOR EACH STATEMENT EXECUTE FUNCTION trig(); ALTER TABLE holes DISABLE TRIGGER disabled;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON wide DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trig();
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER watch_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION on_ddl();
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'localhost', dbname 'a;b');
CREATE USER MAPPING FOR anna SERVER elsewhere OPTIONS (user 'x', password 'y''z');
CREATE FOREIGN TABLE far_away (a int OPTIONS (column_name 'b'), b text) SERVER elsewhere OPTIONS (table_name 't');
ALTER TABLE refs ENABLE ROW LEVEL SECURITY; ALTER TABLE refs FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON refs AS RESTRICTIVE FOR SELECT TO anna, "odd ""role""; x" USING (id = 1);
CREATE PUBLICATION some_tables FOR TABLE holes (id, v) WHERE (id > 5); CREATE PUBLICATION a_schema FOR TABLES IN SCHEMA api;
CREATE PUBLICATION all_tables FOR ALL TABLES WITH (publish = 'insert');
CREATE SUBSCRIPTION from_far CONNECTION 'host=nowhere dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE);
COMMENT ON COLUMN every_type.a_text IS E'quote '' semicolon ; newline\n-- Name: x; Type: ACL; Schema: -; Owner: -\nback\\slash';
COMMENT ON SCHEMA public IS 'the public; schema';
ALTER TABLE holes OWNER TO anna; ALTER FUNCTION add OWNER TO "odd ""role""; x"; ALTER VIEW a_view OWNER TO anna;
GRANT SELECT, INSERT (id) ON every_type TO anna WITH GRANT OPTION; GRANT USAGE ON SCHEMA api TO PUBLIC; GRANT ALL ON SEQUENCE counted TO "odd ""role""; x";
REVOKE EXECUTE ON FUNCTION add FROM PUBLIC; GRANT SELECT (v) ON holes TO PUBLIC; REVOKE CREATE ON SCHEMA public FROM anna;
ALTER DEFAULT PRIVILEGES FOR ROLE anna IN SCHEMA api GRANT SELECT ON TABLES TO "odd ""role""; x";
SELECT lo_from_bytea(70001, decode('00ff5c27', 'hex')), lo_from_bytea(70002, ''), lo_from_bytea(70003, convert_to(repeat('large', 140000), 'UTF8'));
SELECT lo_create(70004); SELECT lo_put(70004, 300000, 'far');
ALTER LARGE OBJECT 70003 OWNER TO anna; GRANT SELECT ON LARGE OBJECT 70001 TO anna; COMMENT ON LARGE OBJECT 70001 IS 'a; large '' one';
