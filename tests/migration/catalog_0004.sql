BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE changes (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at_unix_ms BIGINT NOT NULL, 
	what VARCHAR(16) NOT NULL, 
	mailbox VARCHAR(64), 
	message_id CHAR(32)
);
INSERT INTO "changes" VALUES(1,1750000000000,'mailbox','main',NULL);
INSERT INTO "changes" VALUES(2,1750000000000,'mailbox','main',NULL);
INSERT INTO "changes" VALUES(3,1750000005100,'message','main','01977420dc007d07acd8be6f9f6209c2');
INSERT INTO "changes" VALUES(4,1750000005100,'message','main','01977420dfe875b1a5224a58b791f1d8');
INSERT INTO "changes" VALUES(5,1750000005100,'message','main','01977420e3d073a9bef499bbf4dca4f2');
INSERT INTO "changes" VALUES(6,1750000005100,'message','main','01977420e7b87d3fab3c9250b797528b');
INSERT INTO "changes" VALUES(7,5,'message','main','01977420dfe875b1a5224a58b791f1d8');
INSERT INTO "changes" VALUES(8,6,'message','main','01977420e7b87d3fab3c9250b797528b');
INSERT INTO "changes" VALUES(9,7,'refusal',NULL,NULL);
CREATE TABLE facts (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "facts" VALUES('password_hash','$argon2id$v=19$example');
CREATE TABLE login_links (
	token_sha256 VARCHAR(64) NOT NULL, 
	expires_unix_ms BIGINT NOT NULL, 
	PRIMARY KEY (token_sha256)
);
INSERT INTO "login_links" VALUES('efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef',99);
CREATE TABLE mailboxes (
	"key" VARCHAR(64) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	rings INTEGER, 
	greeting_blob VARCHAR(200), 
	greeting_sha256 VARCHAR(64), 
	created_unix_ms BIGINT NOT NULL, numbers JSON DEFAULT '[]' NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "mailboxes" VALUES('main','Main',3,'greetings/abababababababababababababababababababababababababababababababab.flac','abababababababababababababababababababababababababababababababab',1750000000000,'["+1 202 555 0143"]');
CREATE TABLE messages (
	id CHAR(32) NOT NULL, 
	mailbox VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	caller_number TEXT NOT NULL, 
	caller_name TEXT NOT NULL, 
	started_unix_ms BIGINT NOT NULL, 
	duration_ms BIGINT NOT NULL, 
	audio_ms BIGINT NOT NULL, 
	cut_off BOOLEAN NOT NULL, 
	codec VARCHAR(32) NOT NULL, 
	sample_rate_hz INTEGER NOT NULL, 
	lost_packets INTEGER NOT NULL, 
	end_reason VARCHAR(32) NOT NULL, 
	blob VARCHAR(200) NOT NULL, 
	blob_sha256 VARCHAR(64) NOT NULL, 
	blob_bytes BIGINT NOT NULL, 
	mailbox_reason TEXT NOT NULL, 
	forwarded BOOLEAN NOT NULL, 
	delivered_unix_ms BIGINT NOT NULL, 
	heard_unix_ms BIGINT, 
	notes JSON NOT NULL, clock VARCHAR(16) DEFAULT 'trusted' NOT NULL, details JSON DEFAULT '{}' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(mailbox) REFERENCES mailboxes ("key")
);
INSERT INTO "messages" VALUES('01977420dc007d07acd8be6f9f6209c2','main','message','new','+15550100','Ada',1750000000000,4200,5000,0,'PCMU',8000,2,'caller_hung_up','messages/00/x.flac','abababababababababababababababababababababababababababababababab',1234,'default mailbox',1,1750000005100,NULL,'["clock not trusted"]','trusted','{}');
INSERT INTO "messages" VALUES('01977420dfe875b1a5224a58b791f1d8','main','message','heard','+15550100','Ada',1750000001000,4200,5000,0,'PCMU',8000,2,'caller_hung_up','messages/00/x.flac','abababababababababababababababababababababababababababababababab',1234,'default mailbox',1,1750000005100,5,'["clock not trusted"]','trusted','{}');
INSERT INTO "messages" VALUES('01977420e3d073a9bef499bbf4dca4f2','main','hangup','new','+15550100','Ada',1750000002000,4200,5000,0,'PCMU',8000,2,'caller_hung_up','messages/00/x.flac','abababababababababababababababababababababababababababababababab',1234,'default mailbox',1,1750000005100,NULL,'["clock not trusted"]','unsure','{}');
INSERT INTO "messages" VALUES('01977420e7b87d3fab3c9250b797528b','main','message','deleted','+15550100','Ada',1750000003000,4200,5000,0,'PCMU',8000,2,'caller_hung_up','messages/00/x.flac','abababababababababababababababababababababababababababababababab',1234,'default mailbox',1,1750000005100,NULL,'["clock not trusted"]','trusted','{}');
CREATE TABLE refusals (
	id CHAR(32) NOT NULL, 
	at_unix_ms BIGINT NOT NULL, 
	status INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	caller_number TEXT NOT NULL, 
	caller_name TEXT NOT NULL, 
	request_uri TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "refusals" VALUES('00000000000000000000000000000009',7,480,'the disk is full','5','Bob','sip:x@example.com');
CREATE TABLE sessions (
	token_sha256 VARCHAR(64) NOT NULL, 
	expires_unix_ms BIGINT NOT NULL, 
	PRIMARY KEY (token_sha256)
);
INSERT INTO "sessions" VALUES('cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',99);
CREATE INDEX sessions_expiry ON sessions (expires_unix_ms);
CREATE INDEX login_links_expiry ON login_links (expires_unix_ms);
CREATE INDEX messages_mailbox_newest ON messages (mailbox, id);
CREATE INDEX messages_mailbox_state ON messages (mailbox, kind, state, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('changes',9);
COMMIT;
