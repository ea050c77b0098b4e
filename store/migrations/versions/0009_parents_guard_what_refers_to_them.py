"""On PostgreSQL, what enrollments and messages refer to is guarded when it is deleted, not at each row that refers.

Revision 0009, after 0008. Going back is restoring a backup: there is no downgrade.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FUNCTION = """\
CREATE FUNCTION carillon_still_referred_to() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    referring CONSTANT text := quote_ident(TG_TABLE_SCHEMA) || '.' || quote_ident(TG_ARGV[0]);
    found boolean;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.id = OLD.id THEN
            RETURN NULL;
        END IF;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = 'rows of ' || TG_TABLE_NAME || ' are deleted in transactions that are READ COMMITTED only',
            HINT = 'Others see rows of ' || TG_ARGV[0] || ' that were written after they began too late.';
    END IF;
    -- Whoever is writing rows that refer to this one ends first; whoever wants to waits.
    EXECUTE 'LOCK TABLE ' || referring || ' IN SHARE MODE';
    EXECUTE 'SELECT EXISTS (SELECT FROM ' || referring || ' WHERE ' || quote_ident(TG_ARGV[1]) || ' = $1)'
        INTO found USING OLD.id;
    IF found THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = 'id ' || OLD.id || ' of ' || TG_TABLE_NAME || ' is still referred to by ' || TG_ARGV[0],
            HINT = 'What was planned and sent is kept: correct or anonymise the row instead.';
    END IF;
    RETURN NULL;
END $$"""


def upgrade() -> None:
    """Bring the tables from the revision before to this one. Nothing is read or moved, however large they are."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(_FUNCTION)
    for table, column, parent in (
        ("enrollments", "run_id", "runs"),
        ("enrollments", "contact_id", "contacts"),
        ("enrollments", "account_id", "accounts"),
        ("messages", "enrollment_id", "enrollments"),
    ):
        op.execute(
            f"CREATE TRIGGER tr_{table}_{column} AFTER DELETE OR UPDATE OF id ON {parent} FOR EACH ROW "
            f"EXECUTE FUNCTION carillon_still_referred_to('{table}', '{column}')"
        )
    for table, column in (
        ("enrollments", "run_id"),
        ("enrollments", "contact_id"),
        ("enrollments", "account_id"),
        ("messages", "run_id"),
        ("messages", "enrollment_id"),
        ("messages", "contact_id"),
    ):
        op.drop_constraint(f"fk_{table}_{column}", table, type_="foreignkey")
