-- A batch that waits for its project's own bucket says so in its errors.

SET LOCAL ROLE attune_owner;

COMMENT ON COLUMN batches.errors IS
    'Array of {code, line, message, param}: why the input was refused or, while the batch is not final, what holds it up. NULL otherwise.';

RESET ROLE;
