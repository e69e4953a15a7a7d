//! A data directory as the first version left it.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::Installation;
use crate::backup::{postgres, run};

/// The last migration of that version. Nothing that those made was renamed or dropped since, so its rows are today's without
/// the columns that came later.
const LAST: &str = "0005";
/// The database that takes the other's place.
const OLDER: &str = "older";

impl Installation {
    /// Takes back what was added to the directory since: tables, columns, roles and secrets. `attune storage` runs on it and
    /// nothing else, and is to be ended after.
    pub fn become_the_first_version(&self) {
        self.sql("postgres", "CREATE DATABASE older");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut migrations: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        migrations.sort();
        let is_old = |name: &str| &name[..LAST.len()] <= LAST;
        migrations.retain(|path| is_old(path.file_name().unwrap().to_str().unwrap()));
        for migration in migrations {
            run(postgres("psql")
                .args([
                    "--quiet",
                    "--single-transaction",
                    "--set",
                    "ON_ERROR_STOP=1",
                ])
                .arg(self.database(OLDER))
                .arg("--file")
                .arg(migration));
        }
        let tables = self.sql(
            OLDER,
            "SELECT table_name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position)
             FROM information_schema.columns WHERE table_schema = 'public' AND is_generated = 'NEVER'
             GROUP BY table_name",
        );
        for table in tables.lines() {
            let (table, columns) = table.split_once('|').unwrap();
            self.copy_rows(table, columns);
        }
        // They go on counting where they were.
        for (table, column) in [("job_events", "seq"), ("object_deletions", "id")] {
            let counter = format!("pg_get_serial_sequence('{table}', '{column}')");
            let last = format!("SELECT setval({counter}, max({column})) FROM {table}");
            self.sql(OLDER, &last);
        }
        self.sql(
            OLDER,
            "CREATE TABLE _sqlx_migrations (
                 version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(),
                 success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL
             )",
        );
        let columns = "version, description, installed_on, success, checksum, execution_time";
        self.copy_rows("_sqlx_migrations", columns);
        let forget = format!("DELETE FROM _sqlx_migrations WHERE version > {LAST}");
        self.sql(OLDER, &forget);
        self.sql("postgres", "DROP DATABASE attune WITH (FORCE)");
        self.sql("postgres", "ALTER DATABASE older RENAME TO attune");
        self.sql(
            "postgres",
            "DO $$ DECLARE role name; BEGIN
                 FOR role IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'app\\_%'
                     AND rolname NOT IN ('app_tenant', 'app_worker', 'app_auth', 'app_operator')
                 LOOP EXECUTE format('DROP ROLE %I', role); END LOOP;
             END $$",
        );
        let path = self.data.path().join("secrets.json");
        let mut secrets: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let removed = secrets.as_object_mut().unwrap().remove("secret_keys");
        assert!(removed.is_some(), "it had keys to seal with");
        fs::write(&path, secrets.to_string()).unwrap();
    }

    fn copy_rows(&self, table: &str, columns: &str) {
        let out = format!("COPY (SELECT {columns} FROM {table}) TO STDOUT");
        let rows = self.sql("attune", &out);
        let mut psql = postgres("psql")
            .args(["--quiet", "--set", "ON_ERROR_STOP=1"])
            .arg(self.database(OLDER))
            // In any order of the tables, and without what triggers would add.
            .args(["--command", "SET session_replication_role = replica"])
            .arg("--command")
            .arg(format!("COPY {table} ({columns}) FROM STDIN"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        psql.stdin
            .take()
            .unwrap()
            .write_all(rows.as_bytes())
            .unwrap();
        assert!(psql.wait().unwrap().success(), "{table}");
    }

    /// What the statement answers: a line for a row, its columns parted by `|`.
    fn sql(&self, database: &str, statement: &str) -> String {
        let arguments = [
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set",
            "ON_ERROR_STOP=1",
        ];
        run(postgres("psql")
            .args(arguments)
            .arg(self.database(database))
            .args(["--command", statement]))
    }
}
